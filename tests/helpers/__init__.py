"""What tests share: real servers on their own ports and sockets, and how to break them."""
