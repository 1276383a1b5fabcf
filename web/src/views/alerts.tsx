/** Alarms of all nodes: what is raised now, what they did, and silencing them with the token of the management API. */
import { useMemo, useState } from 'preact/hooks'
import { getJson, getText, ofHost, query, Refused } from '../api/client'
import type { AlertInstance, Alerts, LogEntry } from '../api/types'
import { ago, duration, moment } from '../model/time'
import { number, quantity } from '../model/units'
import { agentName, agentNow, fleet } from '../state/fleet'
import { hashOf, route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { Glyph } from '../ui/glyph'

type Raised = AlertInstance & { node: string }

const RANK: AlertInstance['st'][] = ['CRITICAL', 'WARNING', 'UNDEFINED', 'UNINITIALIZED', 'CLEAR', 'REMOVED']
const TABS = [['raised', 'Raised'], ['all', 'All'], ['log', 'History'], ['silence', 'Silencing']] as const
const ROWS_MAX = 400

export function AlertsView() {
  const { params } = route.value
  const tab = TABS.find(([key]) => key === params.get('tab'))?.[0] ?? 'raised'
  const typed = (params.get('q') ?? '').toLowerCase()
  const node = params.get('node')
  const nodes = fleet.value?.nodes ?? []
  return (
    <>
      <div class="tools">
        <div class="chips" role="group" aria-label="Part">
          {TABS.map(([key, name]) => <button type="button" key={key} aria-pressed={key === tab} onClick={() => setParams({ tab: key === 'raised' ? null : key })}>{name}</button>)}
        </div>
        {tab !== 'silence' && (
          <>
            <label class="picker">
              <span class="sr">Node</span>
              <select value={node ?? ''} onChange={(event) => setParams({ node: event.currentTarget.value })}>
                <option value="">{tab === 'log' ? `${agentName.value} (this agent)` : 'all nodes'}</option>
                {nodes.map((one) => <option key={one.guid} value={one.name}>{one.name}</option>)}
              </select>
            </label>
            <label class="search">
              <Glyph name="search" />
              <span class="sr">Filter alarms</span>
              <input type="search" value={params.get('q') ?? ''} placeholder="alarm, chart, class" onInput={(event) => setParams({ q: event.currentTarget.value })} />
            </label>
          </>
        )}
      </div>
      {tab === 'log' ? <History node={node ?? agentName.value} typed={typed} /> : tab === 'silence' ? <Silencing /> : <Now all={tab === 'all'} node={node} typed={typed} />}
    </>
  )
}

function has(typed: string, ...texts: string[]): boolean {
  return !typed || texts.some((text) => text.toLowerCase().includes(typed))
}

function Now({ all, node, typed }: { all: boolean; node: string | null; typed: string }) {
  const { data, error } = usePoll('alerts', 2_000, (signal) => getJson<Alerts>('/api/v2/alerts?options=instances,values', signal))
  const rows = useMemo(() => {
    const names = new Map(data?.nodes.map((one) => [one.ni, one.nm]))
    const found: Raised[] = []
    for (const one of data?.alert_instances ?? []) {
      const raised = one.st === 'CRITICAL' || one.st === 'WARNING'
      const name = names.get(one.ni) ?? ''
      if ((all || raised) && (!node || name === node) && has(typed, one.nm, one.ch, one.cls, one.tp, one.cmp, one.info)) found.push({ ...one, node: name })
    }
    return found.sort((a, b) => RANK.indexOf(a.st) - RANK.indexOf(b.st) || b.t - a.t || a.nm.localeCompare(b.nm))
  }, [data, all, node, typed])
  const now = agentNow()
  if (error && !data) return <p class="note error">{error}</p>
  if (!data) return <p class="note">asking the agent …</p>
  if (rows.length === 0) {
    const watched = data.alert_instances.length
    return <p class="note good-note">{typed || node ? 'No alarm is like that.' : watched === 0 ? 'No alarm watches anything here.' : `Nothing is raised. ${watched} alarms are watching.`}</p>
  }
  return (
    <div class="scroll-x panel" tabIndex={0} aria-label="Alarms">
      <table class="table alerts">
        <thead><tr><th scope="col">State</th><th scope="col">Alarm</th><th scope="col">Node</th><th scope="col">Chart</th><th scope="col" class="num">Value</th><th scope="col">Since</th><th scope="col" class="wide-cell">What it says</th></tr></thead>
        <tbody>
          {rows.slice(0, ROWS_MAX).map((one) => (
            <tr key={`${one.ni} ${one.nm} ${one.ch}`}>
              <td><span class={`tag ${one.st}`}>{one.st.toLowerCase()}</span></td>
              <th scope="row"><a href={hashOf('alerts', null, { tab: 'log', node: one.node, q: one.nm })} title="Its history">{one.nm}</a><span class="narrow-only muted">{one.info}</span></th>
              <td><a href={hashOf('charts', one.node)}>{one.node}</a></td>
              <td><a href={chartLink(one.node, one.ch)}>{one.ch}</a></td>
              <td class="num">{one.v === null ? '–' : worth(one.v, one.units)}</td>
              <td>{one.tr_t || one.t ? ago(one.tr_t || one.t, now) : '–'}</td>
              <td class="wrap muted wide-cell">{one.info}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > ROWS_MAX && <p class="under muted">the first {ROWS_MAX} of {rows.length}</p>}
    </div>
  )
}

function worth(value: number, units: string): string {
  // A long unit is a sentence that the alarm's own text says better.
  return units && units.length <= 14 ? quantity(value, units) : number(value)
}

function chartLink(node: string, chart: string): string {
  return hashOf('charts', node, { chart: `c-${chart.replace(/[^A-Za-z0-9]+/g, '-')}` })
}

function History({ node, typed }: { node: string; typed: string }) {
  const { data, error } = usePoll(`log ${node}`, 5_000, async (signal) => !node ? [] : getJson<LogEntry[]>(ofHost(node, '/api/v1/alarm_log'), signal))
  const rows = (data ?? []).filter((one) => has(typed, one.name, one.chart, one.status))
  if (error && !data) return <p class="note error">{error}</p>
  if (!data) return <p class="note">asking the agent …</p>
  if (rows.length === 0) return <p class="note">{typed ? 'No event is like that.' : `Nothing has happened to an alarm of ${node}.`}</p>
  return (
    <div class="scroll-x panel" tabIndex={0} aria-label={`History of alarms of ${node}`}>
      <table class="table alerts">
        <thead><tr><th scope="col">When</th><th scope="col">State</th><th scope="col">Alarm</th><th scope="col">Chart</th><th scope="col" class="num">Value</th><th scope="col" class="num">Before that</th><th scope="col">Told</th></tr></thead>
        <tbody>
          {rows.slice(0, ROWS_MAX).map((one) => (
            <tr key={one.unique_id}>
              <td>{moment(one.when)}</td>
              <td><span class={`tag ${one.old_status}`}>{one.old_status.toLowerCase()}</span> <span class="muted" aria-label="to">→</span> <span class={`tag ${one.status}`}>{one.status.toLowerCase()}</span></td>
              <th scope="row">{one.name}</th>
              <td><a href={hashOf('charts', node, { chart: `c-${one.chart.replace(/[^A-Za-z0-9]+/g, '-')}`, after: String(one.when - 600), before: String(Math.min(one.when + 300, Math.floor(agentNow()))) })}>{one.chart}</a></td>
              <td class="num">{one.value_string}</td>
              <td class="num muted">{one.old_value_string}{one.duration > 0 && ` for ${duration(one.duration)}`}</td>
              <td class="muted">{one.silenced === 'true' ? 'silenced' : one.exec_failed ? 'notification failed' : one.recipient}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}

type Silencers = { all: boolean; type: 'None' | 'SILENCE' | 'DISABLE'; silencers: Record<string, string>[] }

const FIELDS = [['alarm', 'Alarm'], ['chart', 'Chart'], ['context', 'Context'], ['hosts', 'Node'], ['families', 'Family']] as const

/** The token stays in this tab: it is gone when that is closed, and in no link. */
function storedToken(): string {
  try {
    return sessionStorage.getItem('token') ?? ''
  } catch {
    return ''
  }
}

function Silencing() {
  const [token, setToken] = useState(storedToken)
  const [rules, setRules] = useState<Silencers | undefined>(undefined)
  const [said, setSaid] = useState<{ text: string; bad: boolean } | undefined>(undefined)
  const [fields, setFields] = useState<Record<string, string>>({})

  const manage = async (parameters: Record<string, string>): Promise<string | undefined> => {
    try {
      return await getText(`/api/v1/manage/health?${query(parameters)}`, undefined, { 'X-Auth-Token': token.trim() })
    } catch (error) {
      const denied = error instanceof Refused && error.status === 403
      const text = denied ? 'The agent does not take this token, or not from where you are (“allow management from” in [web]).' : error instanceof Error ? error.message : String(error)
      setSaid({ text, bad: true })
      if (denied) setRules(undefined)
      return undefined
    }
  }
  const list = async () => {
    const text = await manage({ cmd: 'LIST' })
    if (text === undefined) return
    setRules(JSON.parse(text) as Silencers)
    try {
      sessionStorage.setItem('token', token.trim())
    } catch {
      // Then it is asked for again.
    }
  }
  const act = async (parameters: Record<string, string>) => {
    const text = await manage(parameters)
    if (text === undefined) return
    setSaid({ text: text.trim(), bad: false })
    await list()
  }
  const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value.trim()))
  const some = Object.keys(given).length > 0
  return (
    <div class="silence">
      <form class="panel" onSubmit={(event) => { event.preventDefault(); setSaid(undefined); void list() }}>
        <h2>Token</h2>
        <p class="muted">Silencing needs the token of the management API: the content of <span class="mono">netdata.api.key</span> in the agent’s lib directory. It stays in this tab.</p>
        <div class="row">
          <label class="grow"><span class="sr">Token</span><input type="password" autocomplete="off" value={token} placeholder="token" onInput={(event) => setToken(event.currentTarget.value)} /></label>
          <button type="submit" class="primary" disabled={!token.trim()}>{rules ? 'Read again' : 'Unlock'}</button>
        </div>
      </form>
      {said && <p class={`banner ${said.bad ? 'offline' : ''}`} role="status">{said.text}</p>}
      {rules && (
        <>
          <section class="panel">
            <h2>In force</h2>
            <p>
              {rules.all
                ? rules.type === 'DISABLE' ? 'All alarms are disabled.' : 'No alarm tells anybody.'
                : rules.silencers.length === 0 ? 'Nothing is silenced.' : rules.type === 'DISABLE' ? 'Alarms like these are disabled:' : rules.type === 'SILENCE' ? 'Alarms like these tell nobody:' : 'These are named, but neither silenced nor disabled:'}
            </p>
            <ul class="rules">
              {rules.silencers.map((one, at) => <li key={at}>{Object.entries(one).map(([key, value]) => <span key={key} class="tag">{key}: {value}</span>)}</li>)}
            </ul>
            <div class="row">
              <button type="button" onClick={() => void act({ cmd: 'SILENCE ALL' })}>Silence all</button>
              <button type="button" class="danger" onClick={() => void act({ cmd: 'DISABLE ALL' })}>Disable all</button>
              <button type="button" onClick={() => void act({ cmd: 'RESET' })} disabled={!rules.all && rules.silencers.length === 0 && rules.type === 'None'}>End all of this</button>
            </div>
          </section>
          <form class="panel" onSubmit={(event) => { event.preventDefault(); void act({ cmd: 'SILENCE', ...given }) }}>
            <h2>Silence some</h2>
            <p class="muted">Alarms that are like all that is filled in. Names may hold *.</p>
            <div class="fields">
              {FIELDS.map(([key, name]) => <label key={key}>{name}<input value={fields[key] ?? ''} placeholder="*" onInput={(event) => setFields({ ...fields, [key]: event.currentTarget.value })} /></label>)}
            </div>
            <div class="row">
              <button type="submit" class="primary" disabled={!some}>Silence</button>
              <button type="button" disabled={!some} onClick={() => void act({ cmd: 'DISABLE', ...given })}>Disable</button>
            </div>
          </form>
        </>
      )}
    </div>
  )
}
