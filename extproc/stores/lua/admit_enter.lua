-- Hand a ticket in; the same one again changes nothing.
--
-- request  {id, class, tokens, principal, replica, wait_ms, lease_ms, forced}
-- gives    {standing, position}
-- Forced: it runs already, whatever there is room for.

local id, forced = request[1], request[8]
local ticket = load(id)
local level = (ticket and ticket[1] or request[2]) + 1 -- it stays in the class that it came in
if not ticket then
  ticket = {request[2], request[3], request[4], request[5], now + request[6], WAITING, 0}
  redis.call('ZADD', KEYS[3], whole(now + request[7]), id)
  if forced or (backlog == 0 and not reached(level, counted(level, ticket[2]))) then
    run(id, ticket)
  else
    queue(id, ticket)
    save(id, ticket)
  end
elseif forced and ticket[6] == WAITING then
  unqueue(id, level)
  run(id, ticket)
end
pump(id)
if backlog > length then
  shed_one()
  pump(id)
end
finish()

ticket = load(id)
if not ticket then return {SHED, 0} end
if ticket[6] == RUNNING then return {RUNNING, 0} end
local ahead = redis.call('ZRANK', queues[level], id)
for better = 1, level - 1 do ahead = ahead + waiting[better] end
return {WAITING, ahead + 1}
