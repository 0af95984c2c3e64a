-- A replica's sign of life: keeps its own reservations open, and closes those that nobody keeps open any more.
--
-- KEYS  open reservations (hash), their expiry (sorted set), replicas (sorted set)
-- ARGV  {replica, its reservations, their ttl_ms, replica_ttl_ms, most to close, prefix of closed ones, remember_ms},
--       the time in ms or ''
-- gives {live replicas, reservations closed}
-- One that is closed here keeps what was surely used (its floors). If its owner comes back after all, it can still
-- settle the rest: what is left of the reservation is kept for a while.

local request = cmsgpack.unpack(ARGV[1])
local now = clock(ARGV[2])
local replica, own, ttl_ms, replica_ttl_ms, most = request[1], request[2], request[3], request[4], request[5]
local prefix, remember_ms = request[6], request[7]

for _, id in ipairs(own) do
  redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', now + ttl_ms), id)
end

redis.call('ZADD', KEYS[3], string.format('%.0f', now), replica)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now - replica_ttl_ms))

local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, most)
for _, id in ipairs(expired) do
  local raw = redis.call('HGET', KEYS[1], id)
  if raw then
    local kept = cmsgpack.unpack(raw)
    for _, entry in ipairs(kept) do
      if entry then correct(entry, now, entry[7]) end
    end
    redis.call('SET', prefix .. id, cmsgpack.pack(kept), 'PX', string.format('%.0f', remember_ms))
    redis.call('HDEL', KEYS[1], id)
  end
  redis.call('ZREM', KEYS[2], id)
end
return {redis.call('ZCARD', KEYS[3]), #expired}
