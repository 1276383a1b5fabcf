/**
 * The map: agents, and the links that samples take between them. Made of the paths that every node's samples take, and of what this
 * agent knows of its own connections. Pure; where things stand is decided here too, so the same tree is always drawn alike.
 */
import type { Hop, Stream, StreamPath } from '../api/types'
import type { Node, NodeState } from './nodes'

/** Bytes sent on the connection, whatever they are. */
export const sentOf = ({ destination: { traffic } }: Stream): number => traffic.data + traffic.metadata + traffic.functions + traffic.replication

export type Link = {
  from: string
  to: string
  /** GUIDs of the nodes whose samples take it. */
  nodes: string[]
  up: boolean
  /** The oldest newest sample among its nodes, in seconds; null where this agent does not see that end. */
  lag: number | null
  /** Metrics collected each second that come along it. */
  metrics: number
  /** Bytes sent on it since it stands; only on links that begin here. */
  sent: number | null
  compression: string | null
  tls: boolean | null
  /** Of the nodes whose past is on its way: how much has come, and how long it takes. */
  filling: { percent: number; eta: number | null; nodes: number } | null
  /** Why it does not stand. */
  reason: string | null
}

export type Agent = {
  id: string
  name: string
  state: NodeState | 'elsewhere'
  local: boolean
  /** Nodes drawn as one. */
  members: Node[]
  node: Node | null
  x: number
  y: number
}

export type Topology = { agents: Agent[]; links: Link[]; columns: number; rows: number }

/** So many leaves of one parent are drawn one by one. */
export const LEAVES_MAX = 14
const COMPRESSIONS = ['ZSTD', 'LZ4', 'GZIP', 'BROTLI']

export function compressionOf(capabilities: string[] | undefined): string | null {
  const found = COMPRESSIONS.find((one) => capabilities?.includes(one))
  return found ? found.toLowerCase() : null
}

function emptyLink(from: string, to: string): Link {
  return { from, to, nodes: [], up: true, lag: null, metrics: 0, sent: null, compression: null, tls: null, filling: null, reason: null }
}

/** Agents and links without places. `open` holds the groups that are drawn node by node. */
function graph(nodes: Node[], paths: StreamPath | undefined): { names: Map<string, string>; links: Map<string, Link> } {
  const names = new Map(nodes.map((node) => [node.guid, node.name]))
  const links = new Map<string, Link>()
  const link = (from: string, to: string) => {
    const key = `${from}>${to}`
    let one = links.get(key)
    if (!one) {
      one = emptyLink(from, to)
      links.set(key, one)
    }
    return one
  }
  const local = nodes.find((node) => node.local)
  const path = new Map<string, Hop[]>(paths?.nodes.map((node) => [node.mg, node.streaming_path]))
  for (const node of nodes) {
    const { ingest, stream } = node.instance
    const hops = path.get(node.guid) ?? []
    for (const hop of hops) if (!names.has(hop.host_id)) names.set(hop.host_id, hop.hostname)
    const gone = ingest.status === 'offline' || ingest.status === 'archived'
    if (!gone) {
      hops.slice(1).forEach((hop, at) => {
        const from = hops[at]!
        const one = link(from.host_id, hop.host_id)
        one.nodes.push(node.guid)
        one.metrics += ingest.metrics
      })
    } else if (local && ingest.type === 'child') {
      const one = link(node.guid, local.guid)
      one.nodes.push(node.guid)
      one.up = false
      one.reason = ingest.reason ?? null
    }
    if (!local) continue
    // What came in here: from the last hop before this agent, or from one that says nothing of paths.
    const here = hops.findIndex((hop) => hop.host_id === local.guid)
    if (!gone && ingest.type === 'child') {
      const last = here > 0 ? hops[here - 1]! : hops.at(-1)
      const one = link(last && last.host_id !== local.guid ? last.host_id : node.guid, local.guid)
      if (here <= 0) {
        one.nodes.push(node.guid)
        one.metrics += ingest.metrics
      }
      one.lag = Math.max(one.lag ?? 0, ingest.lag ?? 0)
      one.compression ??= compressionOf(ingest.source?.capabilities)
      one.tls = ingest.source ? ingest.source.remote.endsWith(':SSL') : one.tls
      if (ingest.replication?.in_progress) fill(one, ingest.replication.completion, ingest.replication.eta ?? null)
    }
    // What goes on from here.
    if (!stream) continue
    const next = here >= 0 ? hops[here + 1] : undefined
    if (stream.status === 'offline') {
      // Members of a cluster have it already: another way, or because it is their own.
      if (!node.local && ['LOCALHOST', 'ALREADY CONNECTED'].includes(stream.reason ?? '')) continue
      const tried = stream.destination.parents[0]
      const to = `?${tried?.destination ?? 'parent'}`
      names.set(to, tried?.destination ?? 'no parent')
      const one = link(local.guid, to)
      one.nodes.push(node.guid)
      one.up = false
      one.reason = tried?.last_handshake ?? stream.reason ?? null
    } else if (next) {
      const one = link(local.guid, next.host_id)
      one.lag = Math.max(one.lag ?? 0, ingest.lag ?? 0)
      one.sent = (one.sent ?? 0) + sentOf(stream)
      one.compression ??= stream.destination.traffic.compression ? (compressionOf(stream.destination.capabilities) ?? 'yes') : null
      one.tls = stream.destination.remote.endsWith(':SSL')
      if (stream.replication.in_progress) fill(one, stream.replication.completion, null)
    }
  }
  return { names, links }
}

function fill(link: Link, percent: number, eta: number | null): void {
  const old = link.filling
  link.filling = {
    percent: old ? Math.min(old.percent, percent) : percent,
    eta: old?.eta !== null && old?.eta !== undefined && (eta === null || old.eta > eta) ? old.eta : eta,
    nodes: (old?.nodes ?? 0) + 1,
  }
}

/** How far to the right each agent stands: behind all it gets samples from. Links that have a way back join equals. */
function layers(ids: string[], links: Map<string, Link>): Map<string, number> {
  const layer = new Map(ids.map((id) => [id, 0]))
  const forward = [...links.values()].filter((one) => !links.has(`${one.to}>${one.from}`))
  for (let round = 0; round < Math.min(ids.length, 32); round += 1) {
    let moved = false
    for (const { from, to } of forward) {
      const least = (layer.get(from) ?? 0) + 1
      if ((layer.get(to) ?? 0) < least) {
        layer.set(to, least)
        moved = true
      }
    }
    for (const { from, to } of links.values()) {
      if (!links.has(`${to}>${from}`)) continue
      const both = Math.max(layer.get(from) ?? 0, layer.get(to) ?? 0)
      if (layer.get(from) !== both || layer.get(to) !== both) moved = true
      layer.set(from, both)
      layer.set(to, both)
    }
    if (!moved) break
  }
  return layer
}

export function topology(nodes: Node[], paths: StreamPath | undefined, open: ReadonlySet<string> = new Set()): Topology {
  const { names, links } = graph(nodes, paths)
  const byGuid = new Map(nodes.map((node) => [node.guid, node]))
  const layer = layers([...names.keys()], links)
  const outgoing = new Map<string, Link[]>()
  const fed = new Set<string>()
  for (const one of links.values()) {
    outgoing.set(one.from, [...(outgoing.get(one.from) ?? []), one])
    fed.add(one.to)
  }
  // Leaves of one parent that are many become one, but those that are not well are still seen.
  const leaves = new Map<string, string[]>()
  for (const id of names.keys()) {
    const out = outgoing.get(id) ?? []
    if (!fed.has(id) && out.length === 1 && byGuid.has(id) && !byGuid.get(id)!.local) {
      const key = out[0]!.to
      leaves.set(key, [...(leaves.get(key) ?? []), id])
    }
  }
  const agents: Agent[] = []
  const shownLinks: Link[] = []
  const folded = new Set<string>()
  for (const [to, ids] of leaves) {
    if (ids.length <= LEAVES_MAX || open.has(to)) continue
    const well = ids.filter((id) => byGuid.get(id)!.state === 'live' && !byGuid.get(id)!.replicating)
    const ill = ids.filter((id) => !well.includes(id))
    // The unwell are many too: then all are one.
    const members = ill.length <= LEAVES_MAX / 2 ? well : ids
    if (members.length < 2) continue
    const group = `+${to}`
    const joined = emptyLink(group, to)
    for (const id of members) {
      folded.add(id)
      const one = links.get(`${id}>${to}`)!
      joined.nodes.push(...one.nodes)
      joined.metrics += one.metrics
      joined.lag = Math.max(joined.lag ?? 0, one.lag ?? 0)
      joined.compression ??= one.compression
      joined.tls ??= one.tls
      if (one.filling) fill(joined, one.filling.percent, one.filling.eta)
    }
    shownLinks.push(joined)
    layer.set(group, Math.max(0, (layer.get(to) ?? 1) - 1))
    const list = members.map((id) => byGuid.get(id)!)
    agents.push({ id: group, name: `${members.length} children`, state: list.every((one) => one.state === 'live') ? 'live' : 'stale', local: false, members: list, node: null, x: 0, y: 0 })
  }
  for (const [id, name] of names) {
    if (folded.has(id)) continue
    const node = byGuid.get(id) ?? null
    const state = id.startsWith('?') ? 'offline' : (node?.state ?? 'elsewhere')
    agents.push({ id, name, state, local: node?.local ?? false, members: [], node, x: 0, y: 0 })
  }
  for (const one of links.values()) if (!folded.has(one.from)) shownLinks.push(one)
  return place(agents, shownLinks, layer)
}

/** Gives every agent its column and, within that, its place: by what it sends to, then by name. */
function place(agents: Agent[], links: Link[], layer: Map<string, number>): Topology {
  const columns = Math.max(1, ...agents.map((one) => (layer.get(one.id) ?? 0) + 1))
  const byColumn: Agent[][] = Array.from({ length: columns }, () => [])
  for (const one of agents) {
    one.x = layer.get(one.id) ?? 0
    byColumn[one.x]!.push(one)
  }
  const rows = Math.max(1, ...byColumn.map((list) => list.length))
  const at = new Map<string, number>()
  // From the right, so that children stand beside their parent.
  for (let x = columns - 1; x >= 0; x -= 1) {
    const list = byColumn[x]!
    const target = (one: Agent) => {
      const to = links.filter((link) => link.from === one.id).map((link) => at.get(link.to)).filter((y) => y !== undefined)
      return to.length ? to.reduce((a, b) => a + b, 0) / to.length : rows / 2
    }
    const wanted = new Map(list.map((one) => [one, target(one)]))
    list.sort((a, b) => wanted.get(a)! - wanted.get(b)! || a.name.localeCompare(b.name))
    list.forEach((one, n) => {
      one.y = (rows - list.length) / 2 + n
      at.set(one.id, one.y)
    })
  }
  return { agents, links, columns, rows }
}
