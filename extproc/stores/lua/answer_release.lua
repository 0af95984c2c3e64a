-- The leader is done: whoever waits is told. Another's token changes nothing.
--
-- KEYS  the tenant's prefix
-- ARGV  entry, token, channel, what to say there
-- gives 1: it was the leader

local prefix, entry = KEYS[1], ARGV[1]
if redis.call('GET', prefix .. 'l:' .. entry) ~= ARGV[2] then return 0 end
redis.call('DEL', prefix .. 'l:' .. entry)
if redis.call('DEL', prefix .. 'f:' .. entry) == 1 then redis.call('PUBLISH', ARGV[3], ARGV[4]) end
return 1
