/** All charts of a node, or of all nodes taken together (`*`): menu, search, span of time, and the charts themselves. */
import { useEffect, useMemo, useState } from 'preact/hooks'
import { getJson, ofHost } from '../api/client'
import type { Charts, Contexts } from '../api/types'
import { ChartCard, type ChartSpec } from '../charts/card'
import { type Entry, entryOfChart, entryOfContext, type Section, sections } from '../model/catalog'
import { type Grouping, parseGrouping, resolved, spellGrouping } from '../model/source'
import { duration, moment } from '../model/time'
import { agentName, fleet } from '../state/fleet'
import { go, hashOf, route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { timeWindow } from '../state/window'
import { Glyph } from '../ui/glyph'
import { TimePicker } from '../ui/timepicker'

/** New charts are looked for so often. */
const CATALOG_EVERY_MS = 60_000

type Catalog = { entries: Entry[]; labels: string[] }

async function catalog(node: string, signal: AbortSignal): Promise<Catalog> {
  if (node === '*') {
    const options = 'titles,units,family,priorities,retention,liveness,dimensions,labels'
    const { contexts } = await getJson<Contexts>(`/api/v2/contexts?options=${options}`, signal)
    const labels = new Set(Object.values(contexts).flatMap((one) => Object.keys(one.labels ?? {})))
    return { entries: Object.entries(contexts).map(([id, one]) => entryOfContext(id, one)), labels: [...labels].sort() }
  }
  const { charts } = await getJson<Charts>(ofHost(node, '/api/v1/charts'), signal)
  return { entries: Object.values(charts).map(entryOfChart), labels: [] }
}

export function ChartsView() {
  const { node: named, params } = route.value
  const node = named ?? agentName.value
  const typed = params.get('q') ?? ''
  const grouping = parseGrouping(params.get('g'))
  const { data, error, again } = usePoll(`catalog ${node}`, CATALOG_EVERY_MS, (signal) => (node ? catalog(node, signal) : Promise.reject(new Error('asking the agent …'))))
  // Grouped by a label, only what has it says anything.
  const label = node === '*' ? grouping.label : undefined
  const shown = useMemo(() => sections((data?.entries ?? []).filter((one) => !label || one.labels.includes(label)), typed), [data, typed, label])
  const [menuOpen, setMenuOpen] = useState(false)
  const wanted = params.get('chart')

  // A link to one chart brings it into sight.
  useEffect(() => {
    if (data && wanted) document.getElementById(wanted)?.scrollIntoView({ block: 'center' })
  }, [data !== undefined, wanted])

  const status = fleet.value?.nodes.find((one) => one.name === node || one.guid === node)
  return (
    <div class="charts">
      <div class="tools sticky">
        <button type="button" class="menu-toggle" aria-expanded={menuOpen} onClick={() => setMenuOpen(!menuOpen)}>☰<span class="sr"> Menu of charts</span></button>
        <NodePicker node={node} />
        <label class="search">
          <Glyph name="search" />
          <span class="sr">Search charts</span>
          <input type="search" value={typed} placeholder="search metrics" onInput={(event) => setParams({ q: event.currentTarget.value, chart: null })} />
        </label>
        {node === '*' && <GroupPicker grouping={grouping} labels={data?.labels ?? []} />}
        <span class="grow" />
        <TimePicker />
      </div>
      <div class="charts-body">
        <SideMenu shown={shown} open={menuOpen} close={() => setMenuOpen(false)} />
        <div class="charts-list">
          {status && status.state !== 'live' && (
            <p class={`banner ${status.state}`}>
              {status.name} is {status.state} since {moment(status.instance.ingest.since)}; the newest sample is of {moment(status.last)}.{' '}
              {status.last > 0 && <button type="button" onClick={() => setParams({ after: String(status.last - 600), before: String(status.last) })}>Show its last 10 minutes</button>}
            </p>
          )}
          {!data && !error && <Skeleton />}
          {error && !data && <p class="note error">{error} <button type="button" onClick={again}>Try again</button></p>}
          {data && shown.length === 0 && <p class="note">{typed ? <>No chart has “{typed}”. <button type="button" onClick={() => setParams({ q: null })}>Show all</button></> : 'There is no chart yet.'}</p>}
          {shown.map((section) => (
            <section key={section.id} id={section.id} aria-labelledby={`${section.id}-h`}>
              <h2 id={`${section.id}-h`}>{section.title}</h2>
              {section.families.map((family) => (
                <div key={family.id} id={family.id}>
                  {(section.families.length > 1 || family.name !== section.title.toLowerCase()) && <h3>{family.name}</h3>}
                  <div class="grid">
                    {family.entries.map((entry) => <ChartCard key={entry.anchor} spec={specOf(entry, node, grouping)} />)}
                  </div>
                </div>
              ))}
            </section>
          ))}
        </div>
      </div>
    </div>
  )
}

function specOf(entry: Entry, node: string, grouping: Grouping): ChartSpec {
  const { anchor, title, name, units, every, first, context } = entry
  const across = { label: 'Across all nodes', href: hashOf('charts', '*', { q: context, g: 'node:auto' }) }
  if (node !== '*') return { anchor, title, name, units, every, first, type: entry.type, source: { kind: 'chart', node, chart: name }, more: [across] }
  const by = resolved(grouping, entry.type)
  // Nodes are compared, so their lines begin at one ground; dimensions keep their shape.
  const type = by.by === 'dimension' && (by.how === 'avg' || by.how === 'sum') ? entry.type : 'line'
  return { anchor, title, name, units, every, first, type, source: { kind: 'context', nodes: '*', context, grouping: by } }
}

/** Which node; `*` is all of them. */
function NodePicker({ node }: { node: string }) {
  const names = (fleet.value?.nodes ?? []).map((one) => one.name).sort((a, b) => a.localeCompare(b))
  const keep = () => {
    const { params } = route.peek()
    const kept: Record<string, string> = {}
    for (const name of ['after', 'before', 'q']) {
      const value = params.get(name)
      if (value) kept[name] = value
    }
    return kept
  }
  return (
    <label class="picker">
      <span class="sr">Node</span>
      <select value={node} onChange={(event) => go('charts', event.currentTarget.value, keep())}>
        <option value="*">all nodes together</option>
        {!names.includes(node) && node !== '*' && <option value={node}>{node || '…'}</option>}
        {names.map((name) => <option key={name} value={name}>{name}</option>)}
      </select>
    </label>
  )
}

function GroupPicker({ grouping, labels }: { grouping: Grouping; labels: string[] }) {
  const by = grouping.by === 'chart' ? 'dimension' : grouping.by
  const value = by === 'label' ? `label/${grouping.label}` : by
  const set = (next: string, how: string) => setParams({ g: spellGrouping(parseGrouping(`${next}:${how}`)) })
  return (
    <span class="picker-pair">
      <label class="picker">
        <span>by</span>
        <select value={value} onChange={(event) => set(event.currentTarget.value, grouping.how)}>
          <option value="dimension">dimension</option>
          <option value="node">node</option>
          <option value="instance">instance</option>
          {labels.length > 0 && (
            <optgroup label="label">
              {labels.map((one) => <option key={one} value={`label/${one}`}>{one}</option>)}
            </optgroup>
          )}
        </select>
      </label>
      <label class="picker">
        <span class="sr">How values of a group become one</span>
        <select value={grouping.how} onChange={(event) => set(value, event.currentTarget.value)}>
          <option value="auto">as fits</option>
          <option value="avg">average</option>
          <option value="sum">sum</option>
          <option value="min">minimum</option>
          <option value="max">maximum</option>
        </select>
      </label>
    </span>
  )
}

function SideMenu({ shown, open, close }: { shown: Section[]; open: boolean; close: () => void }) {
  const [current, setCurrent] = useState('')
  useEffect(() => {
    // The section that is read is the last one whose head is above the upper third.
    let asked = 0
    const look = () => {
      cancelAnimationFrame(asked)
      asked = requestAnimationFrame(() => {
        let found = shown[0]?.id ?? ''
        for (const section of shown) {
          const top = document.getElementById(section.id)?.getBoundingClientRect().top ?? Number.POSITIVE_INFINITY
          if (top < innerHeight / 3) found = section.id
        }
        setCurrent(found)
      })
    }
    look()
    addEventListener('scroll', look, { passive: true })
    return () => {
      cancelAnimationFrame(asked)
      removeEventListener('scroll', look)
    }
  }, [shown])
  const jump = (event: Event, id: string) => {
    event.preventDefault()
    close()
    const target = document.getElementById(id)
    target?.scrollIntoView({ block: 'start' })
    target?.querySelector<HTMLElement>('.plot')?.focus({ preventScroll: true })
  }
  return (
    <nav class={`side ${open ? 'open' : ''}`} aria-label="Sections of charts">
      <ul>
        {shown.map((section) => (
          <li key={section.id}>
            <a href={`#${section.id}`} aria-current={section.id === current ? 'true' : undefined} onClick={(event) => jump(event, section.id)}>
              {section.title}<span class="muted"> {section.count}</span>
            </a>
            {(section.id === current || shown.length < 4) && section.families.length > 1 && (
              <ul>
                {section.families.map((family) => (
                  <li key={family.id}><a href={`#${family.id}`} onClick={(event) => jump(event, family.id)}>{family.name}</a></li>
                ))}
              </ul>
            )}
          </li>
        ))}
      </ul>
      <p class="muted side-note">{spanNote()}</p>
    </nav>
  )
}

function spanNote(): string {
  const window = timeWindow.value
  return window.live ? `the last ${duration(window.span)}` : `${moment(window.after)} and ${duration(window.before - window.after)} from there`
}

function Skeleton() {
  return (
    <div class="grid" aria-hidden="true">
      {Array.from({ length: 6 }, (_, at) => <div key={at} class="card skeleton" />)}
    </div>
  )
}
