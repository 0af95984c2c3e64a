-- An answer, which counts as used now; or, to whoever asks first with a token, the task of fetching it.
--
-- KEYS  the tenant's prefix
-- ARGV  entry, token or '', how long the task is held (ms), how long it is known that somebody waits (ms)
-- gives {bytes, age in ms}, or {false, 1 leads or 0}

local prefix, entry, token = KEYS[1], ARGV[1], ARGV[2]

local kept = redis.call('GET', prefix .. 'e:' .. entry)
if kept then
  redis.call('ZADD', prefix .. 'used', 'XX', redis.call('HINCRBY', prefix .. 'totals', 'uses', 1), entry)
  local colon = string.find(kept, ':', 1, true) or 0
  local stored_ms = tonumber(string.sub(kept, 1, colon - 1)) or 0
  return {string.sub(kept, colon + 1), math.max(0, now_ms() - stored_ms)}
end
if token == '' then return {false, 0} end
if redis.call('SET', prefix .. 'l:' .. entry, token, 'NX', 'PX', ARGV[3]) then return {false, 1} end
redis.call('SET', prefix .. 'f:' .. entry, '1', 'PX', ARGV[4])
return {false, 0}
