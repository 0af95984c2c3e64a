-- Make the charges of a reservation what they really were, once.
--
-- KEYS  open reservations (hash), their expiry (sorted set), what is left of this one after it was closed, and the
--       counters
-- ARGV  {reservation, actual of each charge, charges, how long to remember in ms}, the time in ms or ''
-- gives 1: settled now, 0: it was settled before, or is not known
-- With charges it is settled although it may not be known: it was made while Redis was lost, or its making was never
-- answered. That it was settled is then remembered, because the same may be said again.

local request = cmsgpack.unpack(ARGV[1])
local now = clock(ARGV[2])
local id, actual, charges, remember_ms = request[1], request[2], request[3], request[4]

local raw = redis.call('HGET', KEYS[1], id)
local closed = not raw and redis.call('GET', KEYS[3])
if closed == 'settled' then return 0 end

local kept
if raw or closed then
  kept = cmsgpack.unpack(raw or closed)
elseif #charges > 0 then
  kept = {}
  for i, c in ipairs(charges) do
    kept[i] = {c[1], c[2], c[11], c[4], c[5], c[6], c[8], c[9], 0, 0}
  end
else
  return 0
end

for i, entry in ipairs(kept) do
  if entry then correct(entry, now, actual[i]) end
end
if raw then
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
if closed or #charges > 0 then
  redis.call('SET', KEYS[3], 'settled', 'PX', string.format('%.0f', remember_ms))
end
return 1
