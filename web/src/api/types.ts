/** What of the agent's answers the dashboard reads. */

export type Replication = { in_progress: boolean; completion: number; instances: number; eta?: number | null }

export type Ingest = {
  id: number
  hops: number
  type: 'localhost' | 'virtual' | 'child' | 'archived'
  status: 'archived' | 'initializing' | 'replicating' | 'online' | 'offline'
  since: number
  age: number
  metrics: number
  instances: number
  contexts: number
  lag?: number
  reason?: string
  replication?: Replication
  source?: { local: string; remote: string; capabilities: string[] }
}

export type ParentTried = {
  attempts: number
  destination: string
  age?: string
  last_handshake: string
  next_in?: string
  ban?: string
}

export type Stream = {
  id: number
  hops: number
  status: 'replicating' | 'online' | 'offline'
  since: number
  age: number
  reason?: string
  replication: Replication
  destination: {
    local: string
    remote: string
    capabilities: string[]
    traffic: { compression: boolean; data: number; metadata: number; functions: number; replication: number }
    parents: ParentTried[]
    streaming_path: Hop[]
  }
}

export type Hop = {
  hostname: string
  host_id: string
  hops: number
  since: number
  first_time_t: number
  start_time: number
  shutdown_time: number
  flags: string[]
}

export type Instance = {
  db: { status: string; liveness: string; mode: string; first_time: number; last_time: number; metrics: number; instances: number; contexts: number }
  ingest: Ingest
  stream?: Stream
  health: { status: string; alerts?: { critical: number; warning: number; clear: number; undefined: number; uninitialized: number } }
}

export type Named = { mg: string; nm: string; ni: number }

export type Tier = {
  tier: number
  granularity: string
  metrics: number
  disk_used: number
  disk_max: number
  disk_percent: number
  from: number
  to: number
  retention: number
  retention_human: string
}

export type AgentInfo = {
  mg: string
  nm: string
  now: number
  application?: { package: { version: string } }
  nodes?: { total: number; receiving: number; sending: number; archived: number }
  metrics?: { collected: number }
  db_size?: Tier[]
}

export type NodeInstances = { nodes: (Named & { instances: Instance[] })[]; agents: AgentInfo[] }

export type StreamPath = {
  nodes: (Named & {
    v: string
    labels: Record<string, string>
    hw: Record<string, string>
    os: { nm: string; v: string; kernel: { nm: string; v: string } }
    state: string
    streaming_path: Hop[]
  })[]
}

export type ChartInfo = {
  id: string
  name: string
  type: string
  family: string
  context: string
  title: string
  priority: number
  plugin: string
  module: string
  units: string
  chart_type: 'line' | 'area' | 'stacked'
  first_entry: number
  last_entry: number
  update_every: number
  dimensions: Record<string, { name: string }>
  chart_labels: Record<string, string>
}

export type Charts = { hostname: string; version: string; os: string; charts: Record<string, ChartInfo> }

export type ContextInfo = {
  family: string
  units: string
  priority: number
  first_entry: number
  last_entry: number
  live: boolean
  title: string
  chart_type: 'line' | 'area' | 'stacked'
  dimensions?: string[]
  labels?: Record<string, string[]>
  instances?: string[]
}

export type Contexts = { contexts: Record<string, ContextInfo> }

export type DataV1 = {
  view_update_every: number
  update_every: number
  first_entry: number
  last_entry: number
  before: number
  after: number
  dimension_names: string[]
  dimension_ids: string[]
  points: number
  db_points_per_tier: number[]
  result: { labels: string[]; data: (number | null)[][] } | []
}

export type DataV2 = {
  summary: { nodes: { mg: string; nm: string }[] }
  result: { labels: string[]; data: [number, ...[number | null, number, number][]][] }
  db: { update_every: number; first_entry: number; last_entry: number; per_tier: { tier: number; points: number }[] }
  view: { update_every: number; units: string; title: string; chart_type: string; dimensions: { ids: string[]; names: string[] } }
}

export type AlertInstance = {
  ni: number
  nm: string
  ch: string
  ctx: string
  st: 'CRITICAL' | 'WARNING' | 'CLEAR' | 'UNDEFINED' | 'UNINITIALIZED' | 'REMOVED'
  fami: string
  info: string
  units: string
  src: string
  to: string
  cls: string
  tp: string
  cmp: string
  v: number | null
  t: number
  tr_t: number
}

export type Alerts = { nodes: Named[]; alert_instances: AlertInstance[] }

export type LogEntry = {
  hostname: string
  unique_id: number
  alarm_id: number
  name: string
  chart: string
  when: number
  duration: number
  status: string
  old_status: string
  value_string: string
  old_value_string: string
  info: string
  silenced: string
  recipient: string
  exec_code: number
  exec_failed: boolean
}

export type Functions = {
  nodes: Named[]
  functions: { name: string; help: string; ni: number[]; priority: number; tags: string }[]
}

export type Column = {
  index: number
  name: string
  visible: boolean
  type: string
  units?: string
  visualization: string
  value_options?: { units?: string; transform?: string; decimal_points?: number }
  max?: number
  sort?: 'ascending' | 'descending'
  sortable?: boolean
  unique_key?: boolean
  dummy?: boolean
}

export type Table = {
  status: number
  type: string
  help?: string
  update_every?: number
  data: unknown[][]
  columns: Record<string, Column>
  default_sort_column?: string
  errorMessage?: string
}
