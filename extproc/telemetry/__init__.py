"""What the service says about itself: metrics, logs and usage events. Never a word of a prompt or an answer."""
