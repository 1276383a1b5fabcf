/** The map of who streams to whom, alive: states, lag, rates, what is still being filled; and one host looked at closely. */
import { useMemo, useRef, useState } from 'preact/hooks'
import type { Fleet, Node } from '../model/nodes'
import { duration, moment } from '../model/time'
import { type Agent, type Link, sentOf, topology } from '../model/topology'
import { number, quantity } from '../model/units'
import { fleet, fleetError, pathsKnown } from '../state/fleet'
import { go, hashOf, route, setParams } from '../state/place'
import { GapMapOf } from '../ui/gapmap'

const BOX = { width: 184, height: 48 }
const CELL = { width: 404, height: 64 }
const MARGIN = 12
const LEVEL = 150
/** A group of more is not drawn one by one; the list of nodes is for that. */
const DRAWN_MAX = 300

export function TopologyView() {
  const all = fleet.value
  const paths = pathsKnown.value
  const [open, setOpen] = useState<ReadonlySet<string>>(new Set())
  const map = useMemo(() => all && topology(all.nodes, paths, open), [all, paths, open])
  const rates = useRates(map?.links, all)
  const chosen = route.value.params.get('host')
  if (!all || !map) return <p class="note">{fleetError.value ?? 'asking the agent …'}</p>
  const node = all.nodes.find((one) => one.name === chosen || one.guid === chosen) ?? all.nodes.find((one) => one.local)
  const width = (map.columns - 1) * CELL.width + BOX.width + 2 * MARGIN
  const height = map.rows * CELL.height + 2 * MARGIN
  const place = new Map(map.agents.map((one) => [one.id, { x: MARGIN + one.x * CELL.width, y: MARGIN + one.y * CELL.height + (CELL.height - BOX.height) / 2 }]))
  const counts = { up: map.links.filter((one) => one.up).length, filling: map.links.filter((one) => one.filling).length, down: map.links.filter((one) => !one.up).length }
  const toggle = (to: string) => {
    const members = map.agents.find((one) => one.id === `+${to}`)?.members.length ?? 0
    if (members > DRAWN_MAX) {
      go('nodes')
      return
    }
    const next = new Set(open)
    if (!next.delete(to)) next.add(to)
    setOpen(next)
  }
  return (
    <div class="topo">
      <div class="panel map">
        <p class="muted map-note" aria-live="polite">
          {map.links.length === 0 ? 'This agent stands alone: nothing streams to it, and it streams to nobody.' : `${counts.up} ${counts.up === 1 ? 'link' : 'links'} up${counts.down ? `, ${counts.down} down` : ''}${counts.filling ? `, ${counts.filling} bringing the past` : ''}`}
        </p>
        <div class="scroll-x" tabIndex={0} aria-label="Map of streams">
          <svg width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="group" aria-label="Agents and links">
            <defs>
              <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 .5 7 4 0 7.5z" fill="context-stroke" /></marker>
            </defs>
            {map.links.map((one) => {
              const from = place.get(one.from)
              const to = place.get(one.to)
              return from && to && <LinkLine key={`${one.from}>${one.to}`} link={one} from={from} to={to} rate={rates.get(`${one.from}>${one.to}`)} />
            })}
            {map.agents.map((one) => <AgentBox key={one.id} agent={one} at={place.get(one.id)!} chosen={one.node?.guid === node?.guid} open={() => toggle(one.id.slice(1))} />)}
          </svg>
        </div>
        {open.size > 0 && <button type="button" onClick={() => setOpen(new Set())}>Fold children</button>}
      </div>
      {node && <Closer node={node} now={all.now} />}
    </div>
  )
}

/** Bytes a second of each link: what was sent between two looks at it. */
function useRates(links: Link[] | undefined, at: Fleet | undefined): Map<string, number> {
  const seen = useRef(new Map<string, { sent: number; at: number; rate: number }>())
  const last = useRef<Fleet | undefined>(undefined)
  if (links && at !== last.current) {
    last.current = at
    const now = performance.now() / 1000
    for (const one of links) {
      if (one.sent === null) continue
      const key = `${one.from}>${one.to}`
      const before = seen.current.get(key)
      if (before && now - before.at < 0.5) continue
      const rate = before && one.sent >= before.sent ? (one.sent - before.sent) / (now - before.at) : 0
      // Smoothed a little, as a flush falls now into this second and now into that.
      seen.current.set(key, { sent: one.sent, at: now, rate: before ? before.rate * 0.6 + rate * 0.4 : rate })
    }
  }
  return new Map([...seen.current].map(([key, one]) => [key, one.rate]))
}

type Point = { x: number; y: number }

function LinkLine({ link, from, to, rate }: { link: Link; from: Point; to: Point; rate: number | undefined }) {
  const middle = BOX.height / 2
  // Within a column, links between equals go along the side.
  const beside = from.x === to.x
  const down = to.y > from.y
  const start = beside ? { x: from.x + BOX.width * (down ? 0.72 : 0.28), y: from.y + (down ? BOX.height : 0) } : { x: from.x + BOX.width, y: from.y + middle }
  const end = beside ? { x: to.x + BOX.width * (down ? 0.72 : 0.28), y: to.y + (down ? 0 : BOX.height) } : { x: to.x, y: to.y + middle }
  // Level as far as its words reach, then to where it goes.
  const level = start.x + LEVEL
  const bend = (end.x - level) * 0.6
  const path = beside ? `M${start.x} ${start.y}L${end.x} ${end.y}` : `M${start.x} ${start.y}H${level}C${level + bend} ${start.y} ${end.x - bend} ${end.y} ${end.x} ${end.y}`
  const tone = !link.up ? 'down' : link.filling ? 'filling' : (link.lag ?? 0) > 10 ? 'late' : 'up'
  const first = link.up
    ? [link.lag === null ? null : `lag ${duration(link.lag)}`, rate !== undefined && link.sent !== null ? quantity(rate, 'bytes/s') : link.metrics ? `${number(link.metrics)} metrics/s` : null]
    : [(link.reason ?? 'not connected').toLowerCase()]
  const second = link.filling
    ? [`${Math.floor(link.filling.percent)}% of the past`, link.filling.eta ? `${duration(link.filling.eta)} left` : null]
    : link.up ? [link.compression ?? (link.lag === null ? null : 'uncompressed'), link.tls === null ? null : link.tls ? 'TLS' : 'plain'] : []
  const words = (list: (string | null)[]) => list.filter(Boolean).join(' · ')
  const label = { x: beside ? start.x + 6 : start.x + 12, y: beside ? (start.y + end.y) / 2 : start.y - 6 }
  return (
    <g class={`link ${tone}`} data-link={`${link.from}>${link.to}`} data-up={String(link.up)}>
      <title>{`${link.nodes.length} ${link.nodes.length === 1 ? 'node' : 'nodes'}: ${words(first)} ${words(second)}`}</title>
      <path d={path} marker-end="url(#arrow)" />
      {!beside && <text x={label.x} y={label.y}>{words(first)}</text>}
      {!beside && <text x={label.x} y={label.y + 20} class="second">{words(second)}</text>}
      {link.filling && !beside && (
        <g transform={`translate(${label.x} ${label.y + 24})`}>
          <rect width="120" height="3" rx="1.5" class="track" />
          <rect width={1.2 * link.filling.percent} height="3" rx="1.5" class="done" />
        </g>
      )}
    </g>
  )
}

function AgentBox({ agent, at, chosen, open }: { agent: Agent; at: Point; chosen: boolean; open: () => void }) {
  const { node } = agent
  const group = agent.members.length > 0
  const sub = group
    ? `${agent.state === 'live' ? 'all live' : `${agent.members.filter((one) => one.state !== 'live').length} not live`}; show each`
    : node ? [agent.local ? 'this agent' : node.role, node.state === 'live' ? null : node.state, node.version.replace(/^v/, '')].filter(Boolean).join(' · ')
    : agent.state === 'elsewhere' ? 'seen on a path' : 'cannot be reached'
  const inner = (
    <>
      <rect width={BOX.width} height={BOX.height} rx="8" />
      {group && <rect x="5" y="-4" width={BOX.width - 10} height="8" rx="4" class="behind" />}
      <circle cx="16" cy="18" r="4" class={`state ${agent.state}`} />
      <text x="28" y="22" class="name">{clip(agent.name, 21)}</text>
      <text x="28" y="38" class="sub">{clip(sub, 27)}</text>
      {node && node.critical + node.warning > 0 && <text x={BOX.width - 12} y="22" text-anchor="end" class={node.critical ? 'critical' : 'warning'}>{node.critical + node.warning}</text>}
    </>
  )
  const classes = `agent ${agent.state} ${chosen ? 'chosen' : ''} ${agent.local ? 'local' : ''}`
  const transform = `translate(${at.x} ${at.y})`
  if (group) return <g class={classes} transform={transform} role="button" tabIndex={0} aria-label={`${agent.name}: show each`} onClick={open} onKeyDown={(event) => (event.key === 'Enter' || event.key === ' ') && open()}>{inner}</g>
  if (!node) return <g class={classes} transform={transform} data-agent={agent.name}><title>{agent.name}</title>{inner}</g>
  const choose = () => setParams({ host: node.name })
  return (
    <g class={classes} transform={transform} role="button" tabIndex={0} aria-pressed={chosen} aria-label={`${node.name}, ${sub}`} data-agent={node.name} data-state={agent.state} onClick={choose} onKeyDown={(event) => (event.key === 'Enter' || event.key === ' ') && choose()}>
      <title>{node.name}</title>{inner}
    </g>
  )
}

function clip(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text
}

/** One host: its way, its connection, what is being filled, what was tried, what is missing. */
function Closer({ node, now }: { node: Node; now: number }) {
  const { ingest, stream, db } = node.instance
  const path = pathsKnown.value?.nodes.find((one) => one.mg === node.guid)?.streaming_path ?? []
  const replication = ingest.replication?.in_progress ? ingest.replication : undefined
  const sending = stream?.replication.in_progress ? stream.replication : undefined
  const facts: [string, string | null][] = [
    ['comes from', ingest.source ? `${ingest.source.remote.replace(':SSL', '')} ${ingest.source.remote.endsWith(':SSL') ? 'by TLS' : 'in plain'}` : ingest.type === 'localhost' ? 'this machine' : null],
    ['since', ingest.since ? `${moment(ingest.since)}, ${duration(now - ingest.since)}` : null],
    ['connections', ingest.id > 0 ? String(ingest.id) : null],
    ['ended by', ingest.status === 'offline' ? (ingest.reason?.toLowerCase() ?? null) : null],
    ['newest sample', db.last_time ? `${duration(now - db.last_time)} old` : null],
    ['kept', db.first_time ? `${duration(db.last_time - db.first_time)} in ${db.mode}` : null],
    ['metrics', `${number(ingest.metrics)} collected, ${number(db.metrics)} known, ${number(db.instances)} charts`],
    ['agreed', ingest.source?.capabilities.join(' ').toLowerCase() ?? null],
    ['goes on to', stream ? (stream.status === 'offline' ? `nobody: ${(stream.reason ?? '').toLowerCase()}` : `${stream.destination.remote.replace(':SSL', '')} ${stream.destination.remote.endsWith(':SSL') ? 'by TLS' : 'in plain'}, ${quantity(sentOf(stream), 'bytes')} since ${duration(stream.age)}`) : null],
  ]
  return (
    <section class="panel closer" aria-label={node.name}>
      <header>
        <i class={`dot ${node.state}`} />
        <h2>{node.name}</h2>
        <span class="tag">{node.role}</span>
        <span class="muted">{node.state}{node.os ? ` · ${node.os}` : ''} · {node.version}</span>
        <span class="grow" />
        <a class="link-button" href={hashOf('charts', node.name)}>Charts</a>
        <a class="link-button" href={hashOf('top', node.name)}>Functions</a>
      </header>
      {path.length > 1 && (
        <ol class="path" aria-label="Path of its samples">
          {path.map((hop, at) => <li key={hop.host_id}>{at > 0 && <span aria-hidden="true">→</span>}<b>{hop.hostname}</b>{hop.shutdown_time > 0 && <span class="muted"> down {duration(hop.shutdown_time / 1000)} before it started</span>}</li>)}
        </ol>
      )}
      {[{ what: replication, words: 'Its past is arriving' }, { what: sending, words: 'Its past is being sent on' }].map(({ what, words }) => what && (
        <div key={words} class="progress">
          <span>{words}: {what.completion.toFixed(1)}%, {what.instances} charts{what.eta ? `, ${duration(what.eta)} left` : ''}</span>
          <progress max="100" value={what.completion} aria-label={words} />
        </div>
      ))}
      <dl class="facts">
        {facts.map(([name, value]) => value && <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
      </dl>
      {stream && stream.destination.parents.length > 0 && (
        <div class="scroll-x" tabIndex={0} aria-label="Parents tried">
          <table class="table">
            <thead><tr><th scope="col">Parent</th><th scope="col">Last answer</th><th scope="col" class="num">Attempts</th><th scope="col">Tried</th><th scope="col">Next</th></tr></thead>
            <tbody>
              {stream.destination.parents.map((one) => (
                <tr key={one.destination}>
                  <th scope="row">{one.destination}</th>
                  <td><span class={`tag ${one.last_handshake === 'CONNECTED' ? 'good' : one.last_handshake === 'NEVER CONNECTED' ? '' : 'critical'}`}>{(one.ban ?? one.last_handshake).toLowerCase()}</span></td>
                  <td class="num">{one.attempts}</td><td>{one.age ? `${one.age} ago` : '–'}</td><td>{one.next_in ? `in ${one.next_in}` : '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <GapMapOf key={node.guid} node={node} now={now} />
    </section>
  )
}
