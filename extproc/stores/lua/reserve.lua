-- Take every charge or none: the sticky ones together, then, if those and all others fit, the others.
--
-- KEYS  open reservations (hash), their expiry (sorted set), and the counters
-- ARGV  {reservation, ttl_ms, charges}, the time in ms or ''
-- gives {1 admitted or 0, retry_ms or -1, then remaining, reset_ms, wait_ms of each charge}
-- A reservation with an empty name is not kept: what it takes is never given back.

local request = cmsgpack.unpack(ARGV[1])
local now = clock(ARGV[2])
local id, ttl_ms, charges = request[1], request[2], request[3]

-- The same again, because an answer was lost on its way: it is not charged twice.
local again = id ~= '' and redis.call('HEXISTS', KEYS[1], id) == 1

local counters, waits = {}, {}
local sticky_fits, fits = true, true
for i, c in ipairs(charges) do
  counters[i] = load(c, now)
  waits[i] = again and 0 or wait_ms(c, counters[i], c[7], c[11])
  if waits[i] ~= 0 and not c[9] then
    fits = false
    if c[10] then sticky_fits = false end
  end
end

local kept = {}
local retry = 0
local states = {}
for i, c in ipairs(charges) do
  local s = counters[i]
  local position = 0
  local taken = 0
  if not again and waits[i] == 0 and (fits or (sticky_fits and c[10])) then
    taken = c[7]
    position = take(c, s, taken)
    save(c, s)
  end
  if waits[i] ~= 0 and c[9] then
    -- A shadow that would have refused: it took nothing, so it has nothing to settle.
    kept[i] = false
  else
    kept[i] = {c[1], c[2], c[11], c[4], c[5], c[6], c[8], c[9], position, taken}
  end
  if not fits and not c[9] and retry >= 0 then
    local wait = wait_ms(c, s, c[7], c[11])
    retry = wait < 0 and -1 or math.max(retry, wait)
  end
  states[#states + 1] = remaining(c, s)
  states[#states + 1] = reset_ms(c, s)
  states[#states + 1] = waits[i]
end

if fits and id ~= '' and not again then
  redis.call('HSET', KEYS[1], id, cmsgpack.pack(kept))
  redis.call('ZADD', KEYS[2], string.format('%.0f', now + ttl_ms), id)
end
return {fits and 1 or 0, retry, unpack(states)}
