-- The line before one pool, shared by the operations beside this file: each of them is loaded with this text before it.
-- What it does, and why, is said in stores/fair_line.py, which a property test holds it against.
--
-- KEYS  1 state, 2 tickets (hash), 3 their leases (sorted set, ms), 4 replicas by their last sign of life (sorted set, ms),
--       5-8 who waits, by tag, of each class (sorted sets), 9-12 the last tag of each principal, of each class (the same)
-- ARGV  {line, request}, the time in ms or ''
-- The line is {requests, tokens, weights, length, unit}, the first three by class; in them 0 is no bound.
-- The state is {turns, last tags served, requests in use, tokens in use, {the latest turn taken}}, the first four by class.
-- A ticket is {class, tokens, principal, replica, deadline_ms, standing, tag or tokens counted}.
-- Classes are 0 to 3 on the wire, and 1 to 4 here.

local WAITING, RUNNING, SHED, LATE = 1, 2, 3, 4
local LEVELS = 4
local CHANNEL = 'extproc:admit:'

local asked = cmsgpack.unpack(ARGV[1])
local line, request = asked[1], asked[2]
local bounds, token_bounds, weights, length, unit = line[1], line[2], line[3], line[4], line[5]
local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local raw = redis.call('GET', KEYS[1])
local state = raw and cmsgpack.unpack(raw) or {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0}}
local turns, passed, requests, tokens, latest = state[1], state[2], state[3], state[4], state[5]
local queues, ends = {}, {}
local waiting, backlog = {}, 0
for level = 1, LEVELS do
  queues[level], ends[level] = KEYS[4 + level], KEYS[8 + level]
  waiting[level] = redis.call('ZCARD', queues[level])
  backlog = backlog + waiting[level]
end

local function whole(number) return string.format('%.0f', number) end

local function divide_up(value, by)
  local rest = value % by
  return (value - rest) / by + (rest > 0 and 1 or 0)
end

local function load(id)
  local found = redis.call('HGET', KEYS[2], id)
  return found and cmsgpack.unpack(found)
end

local function save(id, ticket) redis.call('HSET', KEYS[2], id, cmsgpack.pack(ticket)) end

local function tell(id, ticket, standing)
  redis.call('PUBLISH', CHANNEL .. ticket[4], standing .. ' ' .. id)
end

local function counted(level, amount)
  local bound = token_bounds[level]
  return bound > 0 and math.min(amount, bound) or amount
end

-- The first class whose bound has no room for one more of class `level`.
local function reached(level, amount)
  for at = 1, level do
    local together, used = 1, amount
    for below = at, LEVELS do
      together, used = together + requests[below], used + tokens[below]
    end
    if (bounds[at] > 0 and together > bounds[at]) or (token_bounds[at] > 0 and used > token_bounds[at]) then
      return at
    end
  end
end

local function queue(id, ticket)
  local level = ticket[1] + 1
  if waiting[level] == 0 then turns[level] = math.max(turns[level], latest[1]) end
  local last = tonumber(redis.call('ZSCORE', ends[level], ticket[3]) or 0)
  ticket[7] = math.max(passed[level], last) + ticket[2]
  redis.call('ZADD', ends[level], whole(ticket[7]), ticket[3])
  redis.call('ZADD', queues[level], whole(ticket[7]), id)
  waiting[level], backlog = waiting[level] + 1, backlog + 1
end

local function unqueue(id, level)
  redis.call('ZREM', queues[level], id)
  waiting[level], backlog = waiting[level] - 1, backlog - 1
end

local function run(id, ticket)
  local level = ticket[1] + 1
  ticket[6], ticket[7] = RUNNING, counted(level, ticket[2])
  requests[level] = requests[level] + 1
  tokens[level] = tokens[level] + ticket[7]
  save(id, ticket)
end

local function remove(id, ticket)
  local level = ticket[1] + 1
  redis.call('HDEL', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  if ticket[6] == RUNNING then
    requests[level] = requests[level] - 1
    tokens[level] = tokens[level] - ticket[7]
    return
  end
  unqueue(id, level)
  if tonumber(redis.call('ZSCORE', ends[level], ticket[3]) or -1) == ticket[7] then
    redis.call('ZADD', ends[level], whole(ticket[7] - ticket[2]), ticket[3])
  end
end

local function send_away(id, ticket, why)
  remove(id, ticket)
  tell(id, ticket, why)
end

-- How far it moves its class's turn.
local function step(ticket) return divide_up(ticket[2] * unit, weights[ticket[1] + 1]) end

local function serve(id, ticket, quiet)
  local level, tag = ticket[1] + 1, ticket[7]
  unqueue(id, level)
  latest[1] = math.max(latest[1], turns[level])
  turns[level] = turns[level] + step(ticket)
  passed[level] = math.max(passed[level], tag)
  redis.call('ZREMRANGEBYSCORE', ends[level], '-inf', whole(passed[level]))
  run(id, ticket)
  if id ~= quiet then tell(id, ticket, RUNNING) end
end

-- Whether the line has changed.
local function let_one_in(quiet)
  local heads = {}
  for level = 1, LEVELS do
    if waiting[level] > 0 then
      local id = redis.call('ZRANGE', queues[level], 0, 0)[1]
      local ticket = load(id)
      heads[#heads + 1] = {turns[level] + step(ticket), level, id, ticket}
    end
  end
  table.sort(heads, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  local barrier = LEVELS + 1
  for rank, head in ipairs(heads) do
    local level, id, ticket = head[2], head[3], head[4]
    if level < barrier then
      if ticket[5] < now then
        send_away(id, ticket, LATE)
        return true
      end
      local at = reached(level, counted(level, ticket[2]))
      if not at then
        serve(id, ticket, quiet)
        for before = 1, rank do
          local other = heads[before][2]
          turns[other] = math.max(turns[other], latest[1])
        end
        return true
      end
      barrier = math.min(barrier, at)
    end
  end
  return false
end

-- Let in all there is room for. `quiet` asks right now, and needn't be told.
local function pump(quiet)
  while backlog > 0 and let_one_in(quiet) do end
  if backlog == 0 then
    for level = 1, LEVELS do turns[level], passed[level] = 0, 0 end
    latest[1] = 0
  end
end

local function shed_one()
  for level = LEVELS, 1, -1 do
    if waiting[level] > 0 then
      local id = redis.call('ZRANGE', queues[level], -1, -1)[1]
      return send_away(id, load(id), SHED)
    end
  end
end

local function finish()
  if backlog == 0 then redis.call('DEL', ends[1], ends[2], ends[3], ends[4]) end
  if backlog == 0 and requests[1] + requests[2] + requests[3] + requests[4] == 0 then
    redis.call('DEL', KEYS[1])
  else
    redis.call('SET', KEYS[1], cmsgpack.pack(state))
  end
end
