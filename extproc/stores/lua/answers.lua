-- What the scripts of the answer cache share.
--
-- All keys of a tenant begin with the same prefix, which has its name as hash tag:
--   e:ENTRY   when it was stored (ms, Redis's time), a colon, its bytes; expires by itself
--   l:ENTRY   the token of whoever fetches it now; expires unless renewed
--   f:ENTRY   somebody waits for that one
--   used      entries by last use (sorted set; the score is a counter, not a time, which could go back)
--   expiry    entries by the time they expire (sorted set, ms)
--   sizes     bytes by entry (hash)
--   totals    bytes, and the counter of uses (hash)
--   vectors   by entry, the vector set that has a vector of the same name (hash)
--   q:ENTRY   the question it answers, where it has a vector; goes with it
--   v:IDENTITY, w:IDENTITY, t:IDENTITY   vectors of questions by entry; of those where an answer was wrong, with the
--             thresholds learned there (hash)
--   r:ID      which entry a response came from, for who says that it was wrong (hash)

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- An entry, what is counted of it, and its vector. 1: it was there.
local function forget(prefix, entry)
  local set = redis.call('HGET', prefix .. 'vectors', entry)
  if set then
    redis.call('VREM', set, entry)
    redis.call('HDEL', prefix .. 'vectors', entry)
    redis.call('DEL', prefix .. 'q:' .. entry)
  end
  local size = redis.call('HGET', prefix .. 'sizes', entry)
  if size then
    redis.call('HINCRBY', prefix .. 'totals', 'bytes', -size)
    redis.call('HDEL', prefix .. 'sizes', entry)
    redis.call('ZREM', prefix .. 'used', entry)
    redis.call('ZREM', prefix .. 'expiry', entry)
  end
  return redis.call('DEL', prefix .. 'e:' .. entry)
end
