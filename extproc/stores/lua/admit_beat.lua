-- A replica's sign of life: keeps its own tickets, and hands back those that nobody keeps any more.
--
-- request  {replica, its tickets, their lease_ms, replica_ttl_ms, most to hand back}
-- Without a name it is nobody's, and only looks.
-- gives    {live replicas, how many were handed back, requests in use, tokens in use, who waits (each by class),
--          where each of its tickets stands}

local replica, own, lease_ms, replica_ttl_ms, most = request[1], request[2], request[3], request[4], request[5]

for _, id in ipairs(own) do
  redis.call('ZADD', KEYS[3], 'XX', whole(now + lease_ms), id)
end
if replica ~= '' then redis.call('ZADD', KEYS[4], whole(now), replica) end
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', whole(now - replica_ttl_ms))

local left = {}
if most > 0 then
  left = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', whole(now), 'LIMIT', 0, most)
end
for _, id in ipairs(left) do
  local ticket = load(id)
  if ticket then remove(id, ticket) else redis.call('ZREM', KEYS[3], id) end
end
pump()
finish()

local standings = {}
for at, id in ipairs(own) do
  local ticket = load(id)
  standings[at] = ticket and ticket[6] or 0
end
return {redis.call('ZCARD', KEYS[4]), #left, requests, tokens, waiting, standings}
