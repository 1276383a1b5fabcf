/**
 * What is said of a node in the lists and the map: one flat record, made of two answers of the agent. Roles follow from the paths
 * that samples take: who stands at the end of somebody's path is a parent, who stands between is a proxy.
 */
import type { AgentInfo, Instance, NodeInstances, StreamPath } from '../api/types'

export type NodeState = 'live' | 'stale' | 'offline' | 'archived'
export type Role = 'parent' | 'proxy' | 'child' | 'standalone' | 'virtual'

export type Node = {
  guid: string
  name: string
  /** The agent that serves this page. */
  local: boolean
  state: NodeState
  /** Its past is still arriving. */
  replicating: boolean
  role: Role
  hops: number
  /** How old its newest sample is. */
  lag: number | null
  first: number
  last: number
  metrics: number
  charts: number
  critical: number
  warning: number
  labels: Record<string, string>
  version: string
  os: string
  instance: Instance
}

export type Fleet = { agent: AgentInfo; nodes: Node[]; now: number }

/** A node that is connected and sends nothing for so long is stale: four times what it collects by, at least. */
const STALE_S = 10

export function stateOf(instance: Instance): NodeState {
  const { ingest, db } = instance
  if (ingest.status === 'archived' || ingest.type === 'archived') return 'archived'
  if (ingest.status === 'offline') return 'offline'
  if (db.liveness === 'stale') return 'stale'
  return (ingest.lag ?? 0) > STALE_S && ingest.status === 'online' ? 'stale' : 'live'
}

/** The role of every agent that is on some path, by its GUID. */
export function roles(paths: StreamPath): Map<string, Role> {
  const found = new Map<string, Role>()
  const rank: Role[] = ['standalone', 'child', 'parent', 'proxy']
  const raise = (guid: string, role: Role) => {
    const old = found.get(guid)
    // Who is at the end of one path and sends on along another is a proxy.
    const both = (old === 'parent' && role === 'child') || (old === 'child' && role === 'parent')
    const next = both ? 'proxy' : role
    if (!old || rank.indexOf(next) > rank.indexOf(old)) found.set(guid, next)
  }
  for (const { streaming_path: path } of paths.nodes) {
    path.forEach((hop, at) => {
      const first = at === 0
      const last = at === path.length - 1
      raise(hop.host_id, first && last ? 'standalone' : first ? 'child' : last ? 'parent' : 'proxy')
    })
  }
  return found
}

export function fleet(answer: NodeInstances, paths: StreamPath | undefined): Fleet {
  const agent = answer.agents[0]!
  const known = new Map(paths?.nodes.map((node) => [node.mg, node]))
  const role = paths ? roles(paths) : new Map<string, Role>()
  const nodes = answer.nodes.map((node): Node => {
    const instance = node.instances[0]!
    const { ingest, db, health } = instance
    const more = known.get(node.mg)
    const local = ingest.type === 'localhost'
    const said = role.get(node.mg)
    // A path is only as long as its connections stand; who has a way to go on is no loner.
    const child = ingest.type === 'child' || instance.stream !== undefined
    return {
      guid: node.mg,
      name: node.nm,
      local,
      state: stateOf(instance),
      replicating: ingest.replication?.in_progress ?? false,
      role: ingest.type === 'virtual' ? 'virtual' : said && said !== 'standalone' ? said : child ? 'child' : 'standalone',
      hops: ingest.hops,
      lag: ingest.lag ?? null,
      first: db.first_time,
      last: db.last_time,
      metrics: db.metrics,
      charts: db.instances,
      critical: health.alerts?.critical ?? 0,
      warning: health.alerts?.warning ?? 0,
      labels: more?.labels ?? {},
      version: more?.v ?? '',
      os: [more?.os.nm, more?.os.v].filter((word) => word && word !== 'unknown').join(' '),
      instance,
    }
  })
  return { agent, nodes, now: agent.now }
}

/**
 * Whether a node is meant by what was typed: words that its name, a label (`key:value`), its role, system or state holds, all of
 * them.
 */
export function matches(node: Node, words: string[]): boolean {
  return words.every((word) => {
    if (node.name.toLowerCase().includes(word) || node.guid.startsWith(word)) return true
    if (node.role === word || node.state === word || node.os.toLowerCase().includes(word)) return true
    for (const [key, value] of Object.entries(node.labels)) {
      if (`${key}:${value}`.toLowerCase().includes(word)) return true
    }
    return false
  })
}

export type NodeOrder = 'name' | 'state' | 'lag' | 'retention' | 'metrics' | 'alerts' | 'hops' | 'role'

const URGENT: NodeState[] = ['stale', 'offline', 'live', 'archived']

export function compare(order: NodeOrder): (a: Node, b: Node) => number {
  const by: Record<NodeOrder, (node: Node) => number | string> = {
    name: (node) => node.name,
    state: (node) => URGENT.indexOf(node.state),
    lag: (node) => -(node.lag ?? -1),
    retention: (node) => -(node.last - node.first),
    metrics: (node) => -node.metrics,
    alerts: (node) => -(node.critical * 1000 + node.warning),
    hops: (node) => node.hops,
    role: (node) => node.role,
  }
  const key = by[order]
  return (a, b) => {
    const [x, y] = [key(a), key(b)]
    if (typeof x === 'number' && typeof y === 'number' && x !== y) return x - y
    if (typeof x === 'string' && typeof y === 'string' && x !== y) return x.localeCompare(y)
    return Number(b.local) - Number(a.local) || a.name.localeCompare(b.name)
  }
}
