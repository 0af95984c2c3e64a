-- Draw more on each charge of an open reservation, all or nothing; a shadow never stands in the way.
--
-- KEYS  open reservations (hash), and the counters
-- ARGV  {reservation, more of each charge}, the time in ms or ''
-- gives 1: drawn, 0: a limit is spent, -1: there is no such reservation

local request = cmsgpack.unpack(ARGV[1])
local now = clock(ARGV[2])
local id, more = request[1], request[2]

local raw = redis.call('HGET', KEYS[1], id)
if not raw then return -1 end
local kept = cmsgpack.unpack(raw)

local counters = {}
for i, entry in ipairs(kept) do
  if entry and more[i] > 0 then
    counters[i] = load(entry, now)
    if wait_ms(entry, counters[i], more[i], entry[3]) ~= 0 and not entry[8] then return 0 end
  end
end
for i, entry in ipairs(kept) do
  if counters[i] then
    entry[#entry + 1] = take(entry, counters[i], more[i])
    entry[#entry + 1] = more[i]
    save(entry, counters[i])
  end
end
redis.call('HSET', KEYS[1], id, cmsgpack.pack(kept))
return 1
