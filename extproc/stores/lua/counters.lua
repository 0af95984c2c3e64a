-- The four ways to count, shared by the operations beside this file: each of them is loaded with this text before it.
--
-- A charge on the wire is {key, kind, amount, a, b, tick_ms, cost, floor, shadow, sticky, most}; a reservation is a list
-- of {key, kind, most, a, b, tick_ms, floor, shadow, position, taken, position, taken, ...}. Positions say where in its
-- counter something was taken (the slot of a sliding window, the period of a budget), so that it is given back there.
-- `most` is the amount of a limit when it is not scaled down: what is beyond `amount` and not beyond that has to wait until
-- nothing else is in the counter, and what is admitted draws more up to that.
-- All numbers are whole and below 2^53, where doubles are exact.

local BUCKET, SLIDING, PERIOD, GAUGE = 1, 2, 3, 4
local DAY_MS = 86400000
local FOREVER_MS = 2 ^ 40
local MOST_EXACT = 2 ^ 52
local GAUGE_TTL_MS = DAY_MS
local GAUGE_WAIT_MS = 1000
local TAKEN = 10 -- where an entry says for the first time how much it took; its position stands before it

local function clock(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function divide_down(value, by)
  return (value - value % by) / by
end

local function divide_up(value, by)
  local rest = value % by
  return (value - rest) / by + (rest > 0 and 1 or 0)
end

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local MONTH_DAYS = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

-- The month that a day since 1970 is in, as a number that counts up, and how many of its days are left, this one too.
local function month_of(day)
  local year = 1970
  while true do
    local length = is_leap(year) and 366 or 365
    if day < length then break end
    day, year = day - length, year + 1
  end
  local month = 1
  while true do
    local length = MONTH_DAYS[month] + ((month == 2 and is_leap(year)) and 1 or 0)
    if day < length then return (year - 1970) * 12 + month, length - day end
    day, month = day - length, month + 1
  end
end

-- The calendar period that holds `now`, and how long it still lasts.
local function period_of(which, now)
  local day = divide_down(now, DAY_MS)
  if which == 1 then return day, (day + 1) * DAY_MS - now end
  if which == 2 then
    local month, days_left = month_of(day)
    return month, (day + days_left) * DAY_MS - now
  end
  return 0, FOREVER_MS
end

-- A counter as it is at `now`; `c` is a charge or a reservation's entry.
local function load(c, now)
  local raw = redis.call('GET', c[1])
  local kept = raw and cmsgpack.unpack(raw)
  local s = {now = now, level = 0}
  if c[2] == BUCKET then
    s.tick = divide_down(now, c[6])
    if kept then
      local backlog = kept[1]
      if kept[3] ~= c[5] then backlog = math.ceil(backlog * c[5] / kept[3]) end
      local last = divide_down(kept[2], c[6])
      s.level = math.max(0, backlog - math.max(0, s.tick - last) * c[4])
      s.tick = math.max(s.tick, last)
    end
  elseif c[2] == SLIDING then
    s.slot, s.slots, s.counts = divide_down(now, c[4]), {}, {}
    if kept and kept[1] == c[4] then
      s.slot = math.max(s.slot, kept[2])
      for i = 3, #kept, 2 do
        if kept[i] >= s.slot - c[5] then
          s.slots[#s.slots + 1] = kept[i]
          s.counts[kept[i]] = kept[i + 1]
          s.level = s.level + kept[i + 1]
        end
      end
    end
  elseif c[2] == PERIOD then
    s.period, s.left_ms = period_of(c[4], now)
    if kept and kept[1] == s.period then s.level = kept[2] end
  elseif kept then
    s.level = kept[1]
  end
  return s
end

-- How long until `cost` fits; 0 if it does now, -1 if it never will.
local function wait_ms(c, s, cost, most)
  if cost <= 0 then return 0 end
  if cost > most then return -1 end
  cost = math.min(cost, c[3])
  if c[2] == BUCKET then
    local over = s.level + (cost - c[3]) * c[5]
    if over <= 0 then return 0 end
    return divide_up(over, c[4]) * c[6]
  end
  local over = s.level + cost - c[3]
  if over <= 0 then return 0 end
  if c[2] == PERIOD then return s.left_ms end
  if c[2] == GAUGE then return GAUGE_WAIT_MS end
  for _, slot in ipairs(s.slots) do
    over = over - s.counts[slot]
    if over <= 0 then return (slot + c[5] + 1) * c[4] - s.now end
  end
  return -1
end

local function add_to_slot(s, slot, count)
  if s.counts[slot] == nil then
    s.slots[#s.slots + 1] = slot
    s.counts[slot] = 0
  end
  s.counts[slot] = s.counts[slot] + count
end

-- Take `cost`, whether it fits or not; the position where it was taken.
local function take(c, s, cost)
  if c[2] == BUCKET then
    s.level = math.min(MOST_EXACT, s.level + cost * c[5]) -- an upstream may report any number
    return 0
  end
  s.level = s.level + cost
  if c[2] == SLIDING then
    add_to_slot(s, s.slot, cost)
    return s.slot
  end
  return c[2] == PERIOD and s.period or 0
end

-- Give back what was taken at a position; what its counter has forgotten since is no longer there to be given back.
local function give(c, s, position, cost)
  if c[2] == BUCKET then
    s.level = math.max(0, s.level - cost * c[5])
  elseif c[2] == SLIDING then
    if s.counts[position] == nil then return end
    local back = math.min(cost, s.counts[position])
    s.counts[position] = s.counts[position] - back
    s.level = s.level - back
  elseif c[2] == GAUGE or position == s.period then
    s.level = math.max(0, s.level - cost)
  end
end

local function save(c, s)
  if s.level == 0 and c[2] ~= PERIOD then
    redis.call('DEL', c[1])
  elseif c[2] == BUCKET then
    local ttl = divide_up(s.level, c[4]) * c[6] + 1000
    redis.call('SET', c[1], cmsgpack.pack({s.level, s.tick * c[6], c[5]}), 'PX', string.format('%.0f', ttl))
  elseif c[2] == SLIDING then
    local kept = {c[4], s.slot}
    for _, slot in ipairs(s.slots) do
      if s.counts[slot] > 0 then
        kept[#kept + 1] = slot
        kept[#kept + 1] = s.counts[slot]
      end
    end
    redis.call('SET', c[1], cmsgpack.pack(kept), 'PX', string.format('%.0f', (c[5] + 2) * c[4]))
  elseif c[2] == PERIOD then
    local kept = cmsgpack.pack({s.period, s.level})
    if s.left_ms == FOREVER_MS then
      redis.call('SET', c[1], kept)
    else
      redis.call('SET', c[1], kept, 'PX', string.format('%.0f', s.left_ms + DAY_MS))
    end
  else
    redis.call('SET', c[1], cmsgpack.pack({s.level}), 'PX', string.format('%.0f', GAUGE_TTL_MS))
  end
end

local function remaining(c, s)
  if c[2] == BUCKET then return divide_down(math.max(0, c[3] * c[5] - s.level), c[5]) end
  return math.max(0, c[3] - s.level)
end

local function reset_ms(c, s)
  if c[2] == BUCKET then return divide_up(s.level, c[4]) * c[6] end
  if c[2] == PERIOD then return s.left_ms end
  if c[2] == GAUGE then return 0 end
  for i = #s.slots, 1, -1 do
    if s.counts[s.slots[i]] > 0 then return (s.slots[i] + c[5] + 1) * c[4] - s.now end
  end
  return 0
end

-- Make what a reservation's entry took be `actual` in all.
local function correct(entry, now, actual)
  local taken = 0
  for i = TAKEN, #entry, 2 do taken = taken + entry[i] end
  if taken == actual then return end
  local s = load(entry, now)
  if actual > taken then
    local position = take(entry, s, actual - taken)
    entry[#entry + 1] = position
    entry[#entry + 1] = actual - taken
  else
    local back = taken - actual
    for i = #entry, TAKEN, -2 do
      local part = math.min(back, entry[i])
      if part > 0 then
        give(entry, s, entry[i - 1], part)
        entry[i] = entry[i] - part
        back = back - part
      end
    end
  end
  save(entry, s)
end
