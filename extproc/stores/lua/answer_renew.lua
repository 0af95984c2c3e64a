-- The leader is alive.
--
-- KEYS  the tenant's prefix
-- ARGV  entry, token, how long its task is held (ms)
-- gives 1: it still has it

local lead = KEYS[1] .. 'l:' .. ARGV[1]
if redis.call('GET', lead) ~= ARGV[2] then return 0 end
return redis.call('PEXPIRE', lead, ARGV[3])
