-- A ticket uses its model no more, or waits no longer.
--
-- KEYS     as in model_enter.lua
-- ARGV     ticket

redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'used', time[1] * 1000 + math.floor(time[2] / 1000))
end
return 1
