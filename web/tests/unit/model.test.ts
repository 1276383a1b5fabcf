import { describe, expect, test } from 'vitest'
import { parseConf, MASK } from '../../src/model/conf'
import { sections, entryOfContext } from '../../src/model/catalog'
import { stack, toCsv } from '../../src/model/frame'
import { gapMap } from '../../src/model/gaps'
import { rank } from '../../src/model/table'
import { duration } from '../../src/model/time'
import { number, quantity, scaleFor } from '../../src/model/units'
import { fromParams, pan, toParams, type Window, zoom } from '../../src/model/window'
import { hashOf, parseHash, splitPath } from '../../src/state/place'
import { Rhythm } from '../../src/state/poll'
import type { DataV2 } from '../../src/api/types'

describe('units', () => {
  test.each([
    [1536, 'KiB', '1.5 MiB'],
    [2500, 'kilobits/s', '2.5 Mbit/s'],
    [0.5, 'kilobits/s', '500 bit/s'],
    [12.345, 'percentage', '12.35%'],
    [90_000, 'milliseconds', '1.5 min'],
    [250, 'milliseconds/s', '250 ms/s'],
    [0, 'KiB/s', '0 KiB/s'],
    [1_250_000, 'events/s', '1.25 M events/s'],
    [7, 'processes', '7 processes'],
    [0.00012, 'load', '0.00012 load'],
  ])('%d %s is %s', (value, unit, text) => expect(quantity(value, unit)).toBe(text))

  test('a chart has one scale, that of its largest value', () => {
    expect(scaleFor('MiB', 2048)).toEqual({ factor: 1 / 1024, unit: 'GiB' })
    expect(scaleFor('MiB', -2048)).toEqual({ factor: 1 / 1024, unit: 'GiB' })
  })

  test('numbers have no needless zeros', () => {
    expect([number(123456.7), number(1.5), number(-0.25), number(null)]).toEqual(['123457', '1.5', '-0.25', '–'])
  })
})

test('durations are told in two units', () => {
  expect([0, 59, 61, 3600, 90_061].map(duration)).toEqual(['0s', '59s', '1m 1s', '1h', '1d 1h'])
})

describe('window', () => {
  const now = 1_000_000
  const live: Window = { live: true, span: 600 }

  test('zooming keeps the moment under the pointer', () => {
    const zoomed = zoom(live, 0.5, now - 300, now)
    expect(zoomed).toEqual({ live: false, after: now - 450, before: now - 150 })
  })

  test('zooming at the edge of the present stays live', () => {
    expect(zoom(live, 2, now, now)).toEqual({ live: true, span: 1200 })
    expect(zoom(live, 0.001, now, now)).toEqual({ live: true, span: 10 })
  })

  test('moving back stands, moving forward beyond the present follows it', () => {
    const back = pan(live, -100, now)
    expect(back).toEqual({ live: false, after: now - 700, before: now - 100 })
    expect(pan(back, 200, now)).toEqual(live)
  })

  test('a link brings it back', () => {
    for (const window of [live, { live: false, after: 999_000, before: 999_600 } as Window]) {
      const { after, before } = toParams(window)
      expect(fromParams(new URLSearchParams({ after, ...(before && { before }) }))).toEqual(window)
    }
    expect(fromParams(new URLSearchParams('after=x&before=-3'))).toEqual(live)
    expect(fromParams(new URLSearchParams('after=500&before=100'))).toEqual(live)
  })
})

describe('place', () => {
  test('the path says which host, and below what the agent answers', () => {
    expect(splitPath('/')).toEqual({ root: '', host: null })
    expect(splitPath('/index.html')).toEqual({ root: '', host: null })
    expect(splitPath('/host/a%20b/')).toEqual({ root: '', host: 'a b' })
    expect(splitPath('/netdata/host/web1/')).toEqual({ root: '/netdata', host: 'web1' })
    expect(splitPath('/netdata/')).toEqual({ root: '/netdata', host: null })
  })

  test('hashes are read as they are written', () => {
    const fallback = { view: 'nodes' as const, node: null, params: new URLSearchParams() }
    const read = parseHash(hashOf('charts', 'a/b?c', { after: '-60', q: 'x y' }), fallback)
    expect([read.view, read.node, read.params.get('after'), read.params.get('q')]).toEqual(['charts', 'a/b?c', '-60', 'x y'])
    expect(parseHash('#/nothing', fallback)).toBe(fallback)
    expect(parseHash('#/charts/%E0%A4%A', fallback).node).toBe(null)
  })
})

describe('frames', () => {
  const series = [
    { id: 'a', name: 'a', values: [1, null, null] },
    { id: 'b', name: 'b,"', values: [2, 3, null] },
  ]

  test('a stack has a gap only where nothing has a value', () => {
    expect(stack(series, () => true)).toEqual([[3, 3, null], [2, 3, null]])
    expect(stack(series, (id) => id === 'a')).toEqual([[1, null, null], [null, null, null]])
  })

  test('names are quoted in CSV', () => {
    const csv = toCsv({ times: [0], series: series.map((one) => ({ ...one, values: [1] })), step: 1, tiers: [], first: 0, last: 0 })
    expect(csv).toBe('time,a,"b,"""\n1970-01-01T00:00:00.000Z,1,1\n')
  })
})

test('the gap map tells what is missing from what never was', () => {
  const row = (time: number, ...values: (number | null)[]) => [time, ...values.map((value) => [value, 0, value === null ? 1 : 0])]
  const answer = {
    result: { labels: ['time', 'x', 'y'], data: [row(50, 1, 1), row(40, null, 1), row(30, null, 1), row(20, 1, null), row(10, null, null)] },
    db: { update_every: 1, first_entry: 15, last_entry: 50, per_tier: [] },
    view: { update_every: 10, units: '', title: '', chart_type: 'line', dimensions: { ids: ['x', 'y'], names: ['cpu', 'net'] } },
    summary: { nodes: [] },
  } as unknown as DataV2
  const map = gapMap(answer, 15, false)
  expect(map.strips.map((one) => one.cells)).toEqual([
    ['before', 'present', 'missing', 'missing', 'present'],
    ['before', 'missing', 'present', 'present', 'present'],
  ])
  expect(map.gaps).toEqual([
    { after: 10, before: 20, names: ['net'] },
    { after: 20, before: 40, names: ['cpu'] },
  ])
  expect(gapMap(answer, 15, true).strips[0]?.cells[2]).toBe('flight')
})

describe('configuration', () => {
  const conf = parseConf(`# comment
[web]
\tbind to = 127.0.0.1
\t# allow from = *

\t# option 'odd' is not used.
\todd = 1
[registry]
\t# netdata management api key file = /var/lib/netdata.api.key
[stream]
\tapi key = 11111111-2222-3333-4444-555555555555
\tproxy = http://me:secret@host/
[11111111-2222-3333-4444-555555555555]
\tenabled = yes
`)

  test('what is set is told from what is by itself', () => {
    expect(conf[0]?.options.map(({ name, set, unused }) => ({ name, set, unused }))).toEqual([
      { name: 'bind to', set: true, unused: false },
      { name: 'allow from', set: false, unused: false },
      { name: 'odd', set: true, unused: true },
    ])
  })

  test('secrets are masked, names of files with secrets are not', () => {
    expect(conf[1]?.options[0]?.value).toBe('/var/lib/netdata.api.key')
    expect(JSON.stringify(conf)).not.toMatch(/11111111|secret@/)
    expect(conf[3]?.name).toBe(MASK)
  })
})

test('sections stand in the order of their first chart, and a search keeps what has all words', () => {
  const context = (priority: number, title: string, family: string) => ({ priority, title, family, units: 'x', first_entry: 0, last_entry: 0, live: true, chart_type: 'line' as const })
  const entries = [entryOfContext('disk.io', context(2000, 'Disk reads', 'sda')), entryOfContext('system.cpu', context(100, 'Processors', 'cpu')), entryOfContext('disk_ext.io', context(2001, '[x]', 'sda'))]
  expect(sections(entries, '').map((one) => [one.title, one.count])).toEqual([['System', 1], ['Disks', 2]])
  expect(sections(entries, 'DISK reads').map((one) => one.title)).toEqual(['Disks'])
  expect(entries[2]?.title).toBe('disk_ext.io')
})

test('in a table what is not there comes last', () => {
  expect([null, 'b10', 'b9', ''].toSorted(rank)).toEqual(['b9', 'b10', null, ''])
  expect([10, 9, null].toSorted(rank)).toEqual([9, 10, null])
})

test('what answers slowly is asked less often', () => {
  const rhythm = new Rhythm(1000)
  expect([5, 1000, 1000, 5, 5].map((took) => rhythm.pause(took))).toEqual([995, 70, 14_000, 995, 995])
})
