-- An answer was served for a question near its own: remember which, for whoever says that it was wrong, and let what was
-- learned around it fade a little, as if it had been right.
--
-- KEYS  the tenant's prefix
-- ARGV  response id, entry, identity, score, how long it is remembered (ms), by how much thresholds fade, lessons...

local prefix, identity = KEYS[1], ARGV[3]
redis.call('HSET', prefix .. 'r:' .. ARGV[1], 'entry', ARGV[2], 'identity', identity, 'score', ARGV[4])
redis.call('PEXPIRE', prefix .. 'r:' .. ARGV[1], ARGV[5])
for at = 7, #ARGV do
  local thresholds = prefix .. 't:' .. identity
  if redis.call('HEXISTS', thresholds, ARGV[at]) == 1 then
    redis.call('HINCRBYFLOAT', thresholds, ARGV[at], -tonumber(ARGV[6]))
  end
end
return 1
