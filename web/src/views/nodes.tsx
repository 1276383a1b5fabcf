/** Every node of this agent: how it stands, and how busy it is. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import { getJson, query, Refused } from '../api/client'
import type { DataV2 } from '../api/types'
import { fromV2 } from '../model/frame'
import { compare, matches, type Node, type NodeOrder, type NodeState } from '../model/nodes'
import { ago, duration, moment } from '../model/time'
import { number, quantity } from '../model/units'
import { fleet, fleetError } from '../state/fleet'
import { hashOf, route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { Glyph } from '../ui/glyph'
import { Spark } from '../ui/spark'
import { type Span, VirtualRows } from '../ui/virtual'

const SPARK_S = 300
const SPARK_POINTS = 60
const SPARK_EVERY_MS = 5_000
/** Who scrolls past is not asked for. */
const SPARK_REST_MS = 150
/** Nodes of one question: their names must fit into a URL. */
const ASKED_MAX = 100

const STATES: NodeState[] = ['live', 'stale', 'offline', 'archived']

const COLUMNS: { key: NodeOrder | null; name: string; class: string }[] = [
  { key: 'name', name: 'Node', class: 'c-name' },
  { key: 'role', name: 'Role', class: 'c-role' },
  { key: 'hops', name: 'Hops', class: 'c-hops num' },
  { key: null, name: 'CPU', class: 'c-cpu' },
  { key: null, name: 'Network', class: 'c-net' },
  { key: 'alerts', name: 'Alerts', class: 'c-alerts' },
  { key: 'lag', name: 'Lag', class: 'c-lag num' },
  { key: 'retention', name: 'Kept', class: 'c-kept num' },
  { key: 'metrics', name: 'Metrics', class: 'c-metrics num' },
]

/** What is drawn of a node's load. */
const LOADS: Record<string, keyof Load> = { 'system.cpu': 'cpu', 'system.net': 'net' }

type Load = { cpu?: (number | null)[]; net?: (number | null)[] }

/** Load of the nodes that are seen, in one question. */
async function loads(guids: string, signal: AbortSignal): Promise<Map<string, Load>> {
  const found = new Map<string, Load>()
  if (guids === '') return found
  const text = query({
    scope_contexts: Object.keys(LOADS).join('|'),
    scope_nodes: guids,
    group_by: 'node,context',
    aggregation: 'sum',
    after: -SPARK_S,
    points: SPARK_POINTS,
  })
  try {
    for (const { id, values } of fromV2(await getJson<DataV2>(`/api/v2/data?${text}`, signal)).series) {
      const [guid = '', context = ''] = id.split(',')
      const kind = LOADS[context]
      if (kind) found.set(guid, { ...found.get(guid), [kind]: values })
    }
  } catch (error) {
    // None of them has samples of these.
    if (!(error instanceof Refused && error.status === 404)) throw error
  }
  return found
}

export function NodesView() {
  const { params } = route.value
  const typed = params.get('q') ?? ''
  const state = params.get('state')
  const order = (COLUMNS.find((column) => column.key === params.get('sort'))?.key ?? 'name') as NodeOrder
  const up = params.get('dir') === 'up'
  const all = fleet.value
  const [span, setSpan] = useState<Span>({ from: 0, to: 40 })

  const shown = useMemo(() => {
    const words = typed.toLowerCase().split(/\s+/).filter(Boolean)
    const found = (all?.nodes ?? []).filter((node) => (!state || node.state === state) && matches(node, words))
    found.sort(compare(order))
    if (up) found.reverse()
    return found
  }, [all, typed, state, order, up])

  const seen = shown.slice(span.from, Math.min(span.to, span.from + ASKED_MAX)).filter((node) => node.state !== 'archived' && node.last - node.first >= 3)
  const asked = useRested(seen.map((node) => node.guid).join('|'), SPARK_REST_MS)
  const load = usePoll(`load ${asked}`, SPARK_EVERY_MS, (signal) => loads(asked, signal))
  const [kept] = useState(() => new Map<string, Load>())
  if (load.data) for (const [guid, one] of load.data) kept.set(guid, one)

  if (!all) return <p class="note">{fleetError.value ?? 'asking the agent …'}</p>
  const counts = new Map<NodeState, number>()
  for (const node of all.nodes) counts.set(node.state, (counts.get(node.state) ?? 0) + 1)
  const narrow = innerWidth < 700
  return (
    <>
      <div class="tools">
        <label class="search">
          <Glyph name="search" />
          <span class="sr">Filter nodes</span>
          <input type="search" value={typed} placeholder="name, label:value, role …" onInput={(event) => setParams({ q: event.currentTarget.value })} />
        </label>
        <div class="chips" role="group" aria-label="State">
          <button type="button" aria-pressed={!state} onClick={() => setParams({ state: null })}>all <b>{all.nodes.length}</b></button>
          {STATES.filter((one) => counts.has(one) || one === state).map((one) => (
            <button type="button" key={one} aria-pressed={state === one} onClick={() => setParams({ state: state === one ? null : one })}>
              <i class={`dot ${one}`} />{one} <b>{counts.get(one) ?? 0}</b>
            </button>
          ))}
        </div>
        <span class="grow" />
        <span class="muted wide-only">{number(all.agent.metrics?.collected)} metrics collected · {all.agent.application?.package.version}</span>
      </div>
      <div class="nodes" role="table" aria-label="Nodes" aria-rowcount={shown.length + 1}>
        <div role="row" class="node-row head">
          {COLUMNS.map((column) => (
            <span key={column.name} role="columnheader" class={column.class} aria-sort={column.key === order ? (up ? 'descending' : 'ascending') : undefined}>
              {column.key ? (
                <button type="button" onClick={() => setParams({ sort: column.key, dir: column.key === order && !up ? 'up' : null })}>
                  {column.name}{column.key === order ? (up ? ' ↑' : ' ↓') : ''}
                </button>
              ) : column.name}
            </span>
          ))}
        </div>
        <VirtualRows items={shown} height={narrow ? 62 : 38} onSpan={setSpan} row={(node, at) => <Row key={node.guid} node={node} at={at} load={kept.get(node.guid)} now={all.now} />} />
      </div>
      {shown.length === 0 && <p class="note">No node is like that. <button type="button" onClick={() => setParams({ q: null, state: null })}>Show all</button></p>}
    </>
  )
}

/** `value` once it has stayed the same for a while; the first at once. */
function useRested(value: string, ms: number): string {
  const [rested, setRested] = useState(value)
  useEffect(() => {
    if (rested === value) return
    const timer = setTimeout(() => setRested(value), rested === '' ? 0 : ms)
    return () => clearTimeout(timer)
  }, [value, rested])
  return rested
}

function latest(values: (number | null)[] | undefined): number | null {
  return values?.findLast((value) => value !== null) ?? null
}

function Row({ node, at, load, now }: { node: Node; at: number; load: Load | undefined; now: number }) {
  const cpu = latest(load?.cpu)
  const net = latest(load?.net)
  const { ingest } = node.instance
  const said = node.replicating ? `${node.state}, its past is arriving` : node.state
  const gone = node.state === 'offline' || node.state === 'archived'
  return (
    <div role="row" class={`node-row ${gone ? 'gone' : ''}`} aria-rowindex={at + 2} data-node={node.name} data-state={node.state}>
      <span role="cell" class="c-name">
        <i class={`dot ${node.state} ${node.replicating ? 'busy' : ''}`} />
        <a href={hashOf('charts', node.name)}>{node.name}</a>
        {node.local && <span class="tag">this agent</span>}
        {node.replicating && <span class="tag info">{Math.floor(ingest.replication?.completion ?? 0)}% of its past{ingest.replication?.eta ? `, ${duration(ingest.replication.eta)} left` : ''}</span>}
        <span class="sr">{said}</span>
        <span class="sub">{gone ? `gone since ${moment(ingest.since)}` : node.os || node.version}</span>
      </span>
      <span role="cell" class="c-role">{node.role}</span>
      <span role="cell" class="c-hops num">{node.hops >= 0 ? node.hops : '–'}</span>
      <span role="cell" class="c-cpu">
        <Spark values={load?.cpu} max={node.local ? undefined : 10} tone="cpu" label={`cpu of ${node.name}, 5 minutes`} />
        <b>{cpu === null ? '–' : `${cpu.toFixed(cpu < 10 ? 1 : 0)}%`}</b>
      </span>
      <span role="cell" class="c-net">
        <Spark values={load?.net} tone="net" label={`network traffic of ${node.name}, 5 minutes`} />
        <b>{net === null ? '–' : quantity(net, 'kilobits/s')}</b>
      </span>
      <span role="cell" class="c-alerts">
        {node.critical > 0 && <a class="count critical" href={hashOf('alerts', null, { node: node.name })}>{node.critical}<span class="sr"> critical</span></a>}
        {node.warning > 0 && <a class="count warning" href={hashOf('alerts', null, { node: node.name })}>{node.warning}<span class="sr"> warnings</span></a>}
        {node.critical + node.warning === 0 && <span class="muted">–</span>}
      </span>
      <span role="cell" class="c-lag num">{gone ? ago(node.last, now) : node.lag === null ? '–' : `${duration(node.lag)}`}</span>
      <span role="cell" class="c-kept num" title={node.first ? `${moment(node.first)} – ${moment(node.last)}` : ''}>{node.first ? duration(node.last - node.first) : '–'}</span>
      <span role="cell" class="c-metrics num">{number(node.metrics)}</span>
    </div>
  )
}
