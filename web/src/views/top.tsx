/** Functions: what a node answers when it is asked now, as a table that is asked for again and again. */
import { useMemo, useState } from 'preact/hooks'
import { getJson, ofHost, query, Refused } from '../api/client'
import type { Functions, Table } from '../api/types'
import { cell, numeric, rank, shownColumns } from '../model/table'
import { agentName, fleet } from '../state/fleet'
import { go, route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { Glyph } from '../ui/glyph'

const STREAMING = 'netdata-streaming'
const EVERY_MAX_MS = 10_000
/** Rows drawn; a filter finds the others. */
const ROWS_MAX = 500

async function ask(node: string, name: string, signal: AbortSignal): Promise<Table> {
  try {
    const table = await getJson<Table>(ofHost(node, `/api/v1/function?${query({ function: name, timeout: 10 })}`), signal)
    if (table.status >= 400) throw new Error(table.errorMessage ?? `it answered ${table.status}`)
    return table
  } catch (error) {
    if (!(error instanceof Refused)) throw error
    let said = error.text
    try {
      const { errorMessage, error_message } = JSON.parse(error.text) as { errorMessage?: string; error_message?: string }
      said = errorMessage ?? error_message ?? said
    } catch {
      // It is text.
    }
    throw new Error(said || error.message)
  }
}

export function TopView() {
  const { node: named, params } = route.value
  const node = named ?? agentName.value
  const list = usePoll('functions', 10_000, (signal) => getJson<Functions>('/api/v2/functions', signal))
  const names = useMemo(() => {
    const at = list.data?.nodes.find((one) => one.nm === node)?.ni
    const of = (list.data?.functions ?? []).filter((one) => at !== undefined && one.ni.includes(at) && one.name !== 'streaming')
    return of.sort((a, b) => Number(b.name === STREAMING) - Number(a.name === STREAMING) || a.priority - b.priority || a.name.localeCompare(b.name))
  }, [list.data, node])
  const chosen = params.get('f') ?? names[0]?.name ?? STREAMING
  const [held, setHeld] = useState(false)
  const [every, setEvery] = useState(1000)
  const { data, error, again } = usePoll(`${node} ${chosen}`, held ? undefined : every, async (signal) => {
    if (!node) throw new Error('asking the agent …')
    const table = await ask(node, chosen, signal)
    setEvery(Math.min(Math.max((table.update_every ?? 1) * 1000, 1000), EVERY_MAX_MS))
    return table
  })
  const nodes = (fleet.value?.nodes ?? []).filter((one) => one.state !== 'archived').map((one) => one.name)
  const help = names.find((one) => one.name === chosen)?.help ?? data?.help
  return (
    <>
      <div class="tools">
        <label class="picker">
          <span class="sr">Node</span>
          <select value={node} onChange={(event) => go('top', event.currentTarget.value)}>
            {!nodes.includes(node) && <option value={node}>{node || '…'}</option>}
            {nodes.map((name) => <option key={name}>{name}</option>)}
          </select>
        </label>
        <div class="chips" role="group" aria-label="Function">
          {names.map((one) => (
            <button type="button" key={one.name} title={one.help} aria-pressed={one.name === chosen} onClick={() => setParams({ f: one.name, sort: null, q: null })}>{title(one.name)}</button>
          ))}
        </div>
        <label class="search">
          <Glyph name="search" />
          <span class="sr">Filter rows</span>
          <input type="search" value={params.get('q') ?? ''} placeholder="filter rows" onInput={(event) => setParams({ q: event.currentTarget.value })} />
        </label>
        <span class="grow" />
        <button type="button" aria-pressed={held} onClick={() => setHeld(!held)}>{held ? 'Held' : 'Hold'}</button>
      </div>
      {help && <p class="muted help">{help}</p>}
      {error && <p class={data ? 'banner offline' : 'note error'} role="alert">{error} <button type="button" onClick={again}>Ask again</button></p>}
      {!data && !error && <p class="note">asking {node || 'the agent'} …</p>}
      {data && <Rows table={data} />}
    </>
  )
}

function title(name: string): string {
  const plain = name.replace(/^netdata-/, '').replaceAll('-', ' ')
  return plain.charAt(0).toUpperCase() + plain.slice(1)
}

function Rows({ table }: { table: Table }) {
  const { params } = route.value
  const [all, setAll] = useState(false)
  const columns = shownColumns(table, all)
  const asked = params.get('sort') ?? table.default_sort_column ?? columns[0]?.[0] ?? ''
  const down = params.get('dir') ? params.get('dir') === 'down' : table.columns[asked]?.sort === 'descending'
  const typed = (params.get('q') ?? '').toLowerCase()
  const at = table.columns[asked]?.index ?? 0
  const rows = table.data
    .filter((row) => !typed || row.some((value) => typeof value !== 'object' && String(value).toLowerCase().includes(typed)))
    .sort((a, b) => (down ? -1 : 1) * rank(a[at], b[at]))
  const options = Object.values(table.columns).find((column) => column.visualization === 'rowOptions')?.index
  const severity = (row: unknown[]) => (options === undefined ? '' : ((row[options] as { severity?: string } | null)?.severity ?? ''))
  const most = new Map(columns.filter(([, column]) => column.visualization === 'bar').map(([key, column]) => [key, column.max ?? Math.max(1, ...table.data.map((row) => Number(row[column.index]) || 0))]))
  const numbers = new Set(columns.filter(([, column]) => numeric(table, column)).map(([key]) => key))
  const hiddenCount = Object.values(table.columns).filter((column) => !column.dummy && !column.visible).length
  return (
    <>
      <div class="scroll-x panel function" tabIndex={0} aria-label="Answer">
        <table class="table">
          <thead>
            <tr>
              {columns.map(([key, column]) => (
                <th key={key} scope="col" title={column.units ?? column.value_options?.units} class={numbers.has(key) ? 'num' : ''} aria-sort={key === asked ? (down ? 'descending' : 'ascending') : undefined}>
                  <button type="button" disabled={column.sortable === false} onClick={() => setParams({ sort: key, dir: key === asked ? (down ? 'up' : 'down') : (column.sort === 'descending' ? 'down' : 'up') })}>
                    {column.name || key}{key === asked ? (down ? ' ↓' : ' ↑') : ''}
                  </button>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, ROWS_MAX).map((row, n) => (
              <tr key={String(row[0] ?? n)} class={severity(row)}>
                {columns.map(([key, column]) => {
                  const value = row[column.index]
                  const text = cell(value, column)
                  const bar = most.get(key)
                  return (
                    <td key={key} class={numbers.has(key) ? 'num' : ''} title={text.length > 40 ? text : undefined}>
                      {bar !== undefined && typeof value === 'number' && <i class="bar-cell" style={{ width: `${Math.min(100, (value / bar) * 100)}%` }} />}
                      {column.visualization === 'pill' && text !== '–' ? <span class={`tag ${TONES[text.toLowerCase()] ?? ''}`}>{text}</span> : <span class="clip">{text}</span>}
                    </td>
                  )
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="muted under">
        {rows.length} {rows.length === 1 ? 'row' : 'rows'}{rows.length > ROWS_MAX ? `, the first ${ROWS_MAX} are shown` : ''}
        {hiddenCount > 0 && <button type="button" aria-pressed={all} onClick={() => setAll(!all)}>{all ? 'Fewer columns' : `${hiddenCount} more columns`}</button>}
      </p>
    </>
  )
}

const TONES: Record<string, string> = { online: 'good', connected: 'good', compressed: 'good', ssl: 'good', offline: 'critical', archived: '', replicating: 'info', initializing: 'info' }
