import { expect, test } from 'vitest'
import type { Hop, Instance, NodeInstances, StreamPath } from '../../src/api/types'
import { compare, fleet, matches, roles } from '../../src/model/nodes'
import { LEAVES_MAX, topology } from '../../src/model/topology'

const hop = (id: string): Hop => ({ hostname: id, host_id: id, hops: 0, since: 0, first_time_t: 0, start_time: 0, shutdown_time: 0, flags: [] })

function instance(type: 'localhost' | 'child', status: Instance['ingest']['status'] = 'online', lag = 0): Instance {
  return {
    db: { status: 'online', liveness: status === 'online' ? 'live' : 'stale', mode: 'dbengine', first_time: 1, last_time: 100, metrics: 10, instances: 5, contexts: 5 },
    ingest: {
      id: 1, hops: type === 'localhost' ? 0 : 1, type, status, since: 1, age: 1, metrics: 10, instances: 5, contexts: 5, lag,
      ...(type === 'child' && status === 'online' && { source: { local: 'a', remote: '[1.2.3.4]:5:SSL', capabilities: ['ZSTD'] } }),
    },
    health: { status: 'online' },
  }
}

function world(paths: Record<string, string[]>, instances: Record<string, Instance>) {
  const names = Object.keys(instances)
  const answer = { nodes: names.map((mg, ni) => ({ mg, nm: mg, ni, instances: [instances[mg]!] })), agents: [{ mg: 'p', nm: 'p', now: 100 }] } as NodeInstances
  const path = { nodes: names.map((mg, ni) => ({ mg, nm: mg, ni, v: '', labels: { env: 'test' }, hw: {}, os: { nm: '', v: '', kernel: { nm: '', v: '' } }, state: '', streaming_path: (paths[mg] ?? []).map(hop) })) } as StreamPath
  return { nodes: fleet(answer, path).nodes, path }
}

test('roles follow from the paths', () => {
  const { path } = world({ c: ['c', 'x', 'p'], x: ['x', 'p'], p: ['p'], s: ['s'] }, { p: instance('localhost'), c: instance('child'), x: instance('child'), s: instance('child') })
  const role = roles(path)
  expect(['c', 'x', 'p', 's'].map((id) => role.get(id))).toEqual(['child', 'proxy', 'parent', 'standalone'])
})

test('a tree has a column for each hop', () => {
  const { nodes, path } = world({ c: ['c', 'x', 'p'], x: ['x', 'p'], p: ['p'] }, { p: instance('localhost'), c: instance('child'), x: instance('child') })
  const map = topology(nodes, path)
  expect(Object.fromEntries(map.agents.map((one) => [one.id, one.x]))).toEqual({ c: 0, x: 1, p: 2 })
  const link = map.links.find((one) => one.to === 'p')!
  expect([link.from, link.nodes.length, link.tls, link.compression]).toEqual(['x', 2, true, 'zstd'])
})

test('parents that send to each other stand in one column', () => {
  const { nodes, path } = world({ c: ['c', 'p', 'q'], d: ['d', 'q', 'p'], p: ['p', 'q'], q: ['q', 'p'] }, { p: instance('localhost'), q: instance('child'), c: instance('child'), d: instance('child') })
  const at = Object.fromEntries(topology(nodes, path).agents.map((one) => [one.id, one.x]))
  expect(at.p).toBe(at.q)
  expect(at.c).toBe(0)
})

test('what a neighbour has already is no broken link, and what nobody takes is', () => {
  const offline = (reason: string): Instance => ({
    ...instance('child'),
    stream: { id: 0, hops: 2, status: 'offline', since: 0, age: 0, reason, replication: { in_progress: false, completion: 0, instances: 0 }, destination: { local: '', remote: '', capabilities: [], traffic: { compression: false, data: 0, metadata: 0, functions: 0, replication: 0 }, parents: [], streaming_path: [] } },
  })
  const down = (reason: string) => {
    const { nodes, path } = world({ c: ['c', 'q', 'p'], p: ['p', 'q'], q: ['q', 'p'] }, { p: instance('localhost'), q: instance('child'), c: offline(reason) })
    return topology(nodes, path).links.filter((one) => !one.up).length
  }
  expect(['ALREADY CONNECTED', 'LOCALHOST', 'CONNECTION REFUSED'].map(down)).toEqual([0, 0, 1])
})

test('a child that is gone, and one that knows no paths, have a link all the same', () => {
  const { nodes, path } = world({ p: ['p'], old: [], gone: [] }, { p: instance('localhost'), old: instance('child'), gone: instance('child', 'offline') })
  const links = topology(nodes, path).links
  expect(links.map((one) => [one.from, one.to, one.up]).sort()).toEqual([['gone', 'p', false], ['old', 'p', true]])
})

test('many children are one until they are opened, the unwell among them are seen', () => {
  const paths: Record<string, string[]> = { p: ['p'] }
  const instances: Record<string, Instance> = { p: instance('localhost') }
  for (let n = 0; n < LEAVES_MAX + 20; n += 1) {
    paths[`c${n}`] = [`c${n}`, 'p']
    instances[`c${n}`] = instance('child', 'online', n === 3 ? 60 : 0)
  }
  const { nodes, path } = world(paths, instances)
  const folded = topology(nodes, path)
  expect(folded.agents.map((one) => one.name).sort()).toEqual(['33 children', 'c3', 'p'])
  expect(topology(nodes, path, new Set(['p'])).agents.length).toBe(LEAVES_MAX + 21)
})

test('nodes are found by words of their name, labels and role', () => {
  const { nodes } = world({ web: ['web', 'p'], p: ['p'] }, { p: instance('localhost'), web: instance('child') })
  const web = nodes.find((one) => one.name === 'web')!
  expect([['we'], ['env:test', 'child'], ['live'], ['web', 'parent']].map((words) => matches(web, words))).toEqual([true, true, true, false])
  expect(nodes.toSorted(compare('name')).map((one) => one.name)).toEqual(['p', 'web'])
})
