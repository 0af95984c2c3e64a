-- Use a model if it is there, or be one of those who wait for it. Asking again with the same ticket is how one waits.
--
-- KEYS[1]  the model's hash: state, since, until, used, wanted, load_ms, error
-- KEYS[2]  who uses it: ticket -> until when it is believed to live
-- KEYS[3]  who waits for it: the same
-- ARGV     ticket, lease (ms), how many may wait
-- gives    {standing, ms}: 1 ready (ms: loaded since), 2 waiting, 3 full (ms: what is left of its load), 4 failed (ms:
--          until it is tried again); -1: not known

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local model = redis.call('HMGET', KEYS[1], 'state', 'since', 'until', 'load_ms')
local state, since = model[1], tonumber(model[2] or 0)
if state == 'loaded' then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
  redis.call('HSET', KEYS[1], 'used', now)
  return {1, since}
end
-- It may have been taken for ready, and be told now that it is not.
redis.call('ZREM', KEYS[2], ARGV[1])
local until_ms = tonumber(model[3] or 0)
if state == 'failed' and now < until_ms then
  redis.call('ZREM', KEYS[3], ARGV[1])
  return {4, until_ms - now}
end
local left, load_ms = -1, tonumber(model[4] or 0)
if state == 'loading' and load_ms > 0 then left = math.max(0, load_ms - (now - since)) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
if not redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  local waiting = redis.call('ZCARD', KEYS[3])
  if waiting >= tonumber(ARGV[3]) then return {3, left} end
  if waiting == 0 then redis.call('HSET', KEYS[1], 'wanted', now) end
end
redis.call('ZADD', KEYS[3], now + ARGV[2], ARGV[1])
return {2, left}
