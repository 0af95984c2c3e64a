-- All models of a mesh, for its loader: whoever asks first is that, for as long as it goes on asking.
--
-- KEYS[1]  the loader's name
-- KEYS     then of each model: as in model_enter.lua, and whether an operator wants it unloaded
-- ARGV     who asks (empty: an onlooker), lease (ms)
-- gives    {1 if it is the loader, now (ms), of each model {state, since, until, used, wanted, load_ms, users, waiting,
--          1 if it is to go, error}}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local leads = 0
if ARGV[1] ~= '' then
  local loader = redis.call('GET', KEYS[1])
  if not loader or loader == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    leads = 1
  end
end
local models = {}
for at = 2, #KEYS, 4 do
  local model = redis.call('HMGET', KEYS[at], 'state', 'since', 'until', 'used', 'wanted', 'load_ms', 'error')
  redis.call('ZREMRANGEBYSCORE', KEYS[at + 1], '-inf', now)
  redis.call('ZREMRANGEBYSCORE', KEYS[at + 2], '-inf', now)
  local row = {model[1] or ''}
  for field = 2, 6 do row[field] = tonumber(model[field] or 0) end
  row[7] = redis.call('ZCARD', KEYS[at + 1])
  row[8] = redis.call('ZCARD', KEYS[at + 2])
  row[9] = redis.call('EXISTS', KEYS[at + 3])
  row[10] = model[7] or ''
  models[#models + 1] = row
end
return {leads, now, models}
