-- Changes what is said of an experiment, if it is still what the caller believes.
--
-- KEYS[1]  the hash: experiment -> what is said of it, as JSON
-- ARGV[1]  the experiment
-- ARGV[2]  what the caller has read; empty: nothing
-- ARGV[3]  what is to be there; empty: nothing
-- Returns 1 if it is done, 0 if something else was there.

local now = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if now ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
return 1
