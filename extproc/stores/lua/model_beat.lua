-- A sign of life of tickets that use a model; one that was given up is counted again.
--
-- KEYS[1]  who uses it: ticket -> until when it is believed to live
-- ARGV     lease (ms), tickets

local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[1]
for at = 2, #ARGV do redis.call('ZADD', KEYS[1], until_ms, ARGV[at]) end
return 1
