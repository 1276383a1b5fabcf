/** Agents for the tests: real programs with real configuration files in a directory that goes away, on free ports of the loopback. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join, resolve } from 'node:path'

export const REPOSITORY = resolve(import.meta.dirname, '../../..')
const KEY = '5b1d5a2c-6c0f-4a3e-9a53-0d6f2f7c1e11'

export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

export async function until<T>(what: string, seconds: number, look: () => Promise<T | undefined | false>): Promise<T> {
  const end = Date.now() + seconds * 1000
  for (;;) {
    try {
      const found = await look()
      if (found) return found
    } catch {
      // Not yet.
    }
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`)
    await new Promise((later) => setTimeout(later, 100))
  }
}

export class Agent {
  private process: ChildProcess | undefined

  private constructor(
    readonly name: string,
    readonly port: number,
    private readonly program: string,
    private readonly dir: string,
  ) {}

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** The token of its management API. */
  get token(): string {
    return readFileSync(join(this.dir, 'lib/netdata.api.key'), 'utf8').trim()
  }

  /** `parent`: the port its samples go to, or words for `destination`. `more`: lines of netdata.conf, which may depend on its own address. */
  static async make(root: string, name: string, program: string, parent: number | string | undefined, more: string | ((url: string) => string) = '', port?: number): Promise<Agent> {
    const dir = join(root, name)
    for (const sub of ['etc', 'cache', 'lib', 'log', 'run']) mkdirSync(join(dir, sub), { recursive: true })
    port ??= await freePort()
    const ours = program !== process.env.NETDATA_REAL
    const places = ours
      ? `    stock config = ${REPOSITORY}/conf.d\n    plugins = "${REPOSITORY}/plugins.d"\n    web = ${REPOSITORY}/web/dist\n`
      : ''
    writeFileSync(
      join(dir, 'etc/netdata.conf'),
      `[global]
    hostname = ${name}
    run as user = ${userInfo().username}
[directories]
    config = ${dir}/etc
    cache = ${dir}/cache
    lib = ${dir}/lib
    log = ${dir}/log
    home = ${dir}/lib
    lock = ${dir}/run
${places}[web]
    default port = ${port}
    bind to = 127.0.0.1
[cloud]
    enabled = no
${typeof more === 'string' ? more : more(`http://127.0.0.1:${port}`)}`,
    )
    const takes = `[${KEY}]\n    enabled = yes\n    type = api\n    default memory mode = dbengine\n`
    const sends = (to: string) => `[stream]\n    enabled = yes\n    destination = ${to}\n    api key = ${KEY}\n    reconnect delay seconds = 1\n    ssl skip certificate verification = yes\n`
    // Words say more than one parent, so there is a cluster, and its members take each other's samples.
    const stream = parent === undefined ? takes : typeof parent === 'number' ? sends(`127.0.0.1:${parent}`) : `${sends(parent)}\n${takes}`
    writeFileSync(join(dir, 'etc/stream.conf'), stream)
    return new Agent(name, port, program, dir)
  }

  async start(): Promise<this> {
    this.process = spawn(this.program, ['-D', '-c', join(this.dir, 'etc/netdata.conf'), '-P', join(this.dir, 'run/netdata.pid')], {
      stdio: 'ignore',
      env: { ...process.env, VIRTUALIZATION: 'none', DO_NOT_TRACK: '1', DISABLE_TELEMETRY: '1' },
    })
    await until(`${this.name} to answer`, 60, async () => (await fetch(`${this.url}/api/v1/info`)).ok)
    return this
  }

  /** Ends it as a power cut does, or, by default, as it is asked to. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const ending = this.process
    this.process = undefined
    if (!ending || ending.exitCode !== null || ending.signalCode !== null) return
    ending.kill(signal)
    const hard = setTimeout(() => ending.kill('SIGKILL'), 20_000)
    await once(ending, 'exit')
    clearTimeout(hard)
  }
}

/** A directory for agents. */
export function makeRoot(): { root: string; remove: () => void } {
  const root = mkdtempSync(join(tmpdir(), 'dashboard-'))
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) }
}
