-- The loader says what has become of a model; one that is not the loader any more has nothing to say.
--
-- KEYS[1]  the loader's name
-- KEYS     then the model's hash, and who uses it
-- ARGV     who says it, '1' if only while nobody uses the model, then fields and their values
-- gives    1 if it holds now, 0 if somebody uses the model, -1 if another is the loader

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '1' then
  redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
  if redis.call('ZCARD', KEYS[3]) > 0 then return 0 end
end
redis.call('HSET', KEYS[2], 'since', now, unpack(ARGV, 3))
return 1
