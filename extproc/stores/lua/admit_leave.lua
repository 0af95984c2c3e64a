-- Hand a ticket back.
--
-- request  {id}
-- gives    what it stood for, 0 if it is not known

local ticket = load(request[1])
if not ticket then return 0 end
remove(request[1], ticket)
pump()
finish()
return ticket[6]
