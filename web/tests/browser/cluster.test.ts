/**
 * A cluster as its map shows it: two parents that stream to each other and a child that knows both, all of it encrypted; one parent is killed.
 * And fingers, on a screen that has them.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Agent, freePort, makeRoot, REPOSITORY } from './agents'

const OURS = process.env.NETDATA_BIN ?? ''
const PICTURES = process.env.ARTEFACTS ?? join(REPOSITORY, 'target/web')
const PATIENCE = Number(process.env.PATIENCE ?? 5)

const { root, remove } = makeRoot()
let browser: Browser
let first: Agent
let second: Agent
let child: Agent

beforeAll(async () => {
  mkdirSync(PICTURES, { recursive: true })
  const [key, certificate] = [join(root, 'key.pem'), join(root, 'cert.pem')]
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-keyout', key, '-out', certificate], { stdio: 'ignore' })
  // Plain requests of the browser are answered too; streams are asked to encrypt.
  const member = `[db]\n    mode = dbengine\n[health]\n    enabled = no\n[web]\n    bind to = 127.0.0.1^SSL=optional\n    ssl key = ${key}\n    ssl certificate = ${certificate}\n`
  const ports = [await freePort(), await freePort()]
  const at = (port: number | undefined) => `127.0.0.1:${port}:SSL`
  first = await (await Agent.make(root, 'first', OURS, at(ports[1]), member, ports[0])).start()
  second = await (await Agent.make(root, 'second', OURS, at(ports[0]), member, ports[1])).start()
  child = await (await Agent.make(root, 'child', OURS, `${at(ports[0])} ${at(ports[1])}`, '[db]\n    mode = ram\n[health]\n    enabled = no\n')).start()
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  })
})

afterAll(async () => {
  await browser?.close()
  for (const agent of [child, second, first]) await agent?.stop()
  remove()
})

/** The links of a map as `from>to up`, and what each says. */
async function links(page: Page): Promise<Map<string, string>> {
  const found = await page.locator('[data-link]').evaluateAll((all) => all.map((one) => [one.getAttribute('data-link'), one.getAttribute('data-up'), one.querySelector('title')?.textContent]))
  return new Map(found.map(([link, up, title]) => [`${link} ${up}`, title ?? '']))
}

test('a cluster is drawn as one, with the links in both directions and their encryption', async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, baseURL: second.url })
  await page.goto('/#/topology?host=child')
  for (const name of ['first', 'second', 'child']) await page.locator(`[data-agent="${name}"][data-state="live"]`).waitFor()
  await expect.poll(() => page.locator('[data-link][data-up="true"]').count(), { timeout: 30_000 }).toBe(3)
  // What a neighbour has already is not drawn as a link that is down.
  await expect.poll(async () => [...(await links(page))].filter(([link]) => link.endsWith(' false')), { timeout: 20_000 }).toEqual([])
  const guid = async (agent: Agent) => ((await (await fetch(`${agent.url}/api/v1/info`)).json()) as { uid: string }).uid
  const [a, b, c] = [await guid(first), await guid(second), await guid(child)]
  await expect.poll(async () => [...(await links(page)).keys()].sort(), { timeout: 30_000 }).toEqual([`${a}>${b} true`, `${b}>${a} true`, `${c}>${a} true`].sort())
  // This agent sees both ends of the links between the parents.
  const told = await links(page)
  for (const link of [`${a}>${b} true`, `${b}>${a} true`]) expect(told.get(link)).toMatch(/zstd|lz4/)
  for (const link of [`${a}>${b} true`, `${b}>${a} true`]) expect(told.get(link)).toContain('TLS')
  await page.getByText('by TLS').first().waitFor()
  await page.screenshot({ path: join(PICTURES, 'cluster-1280.png') })
  await page.close()
})

test('fingers move and pinch a chart, and the page still scrolls', async () => {
  const context = await browser.newContext({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, baseURL: second.url })
  const page = await context.newPage()
  await page.goto('/#/charts/child?after=-120')
  const plot = page.locator('[data-chart="system.cpu"] .u-over')
  await page.locator('[data-chart="system.cpu"] [data-state="ready"] canvas').waitFor()
  await plot.scrollIntoViewIfNeeded()
  const box = (await plot.boundingBox())!
  const touch = await context.newCDPSession(page)
  const at = (...xs: number[]) => xs.map((x, id) => ({ x: box.x + box.width * x, y: box.y + box.height / 2, id }))
  const span = () => {
    const found = /after=(-?\d+)(?:&before=(\d+))?/.exec(page.url())!
    return { after: Number(found[1]), before: Number(found[2] ?? 0) }
  }
  // One finger to the right: earlier samples come into view, as many as before.
  await touch.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: at(0.3) })
  for (let x = 0.35; x < 0.75; x += 0.05) await touch.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: at(x) })
  await touch.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] })
  await expect.poll(() => span().before, { timeout: 10_000 }).toBeGreaterThan(0)
  await page.waitForTimeout(500)
  const moved = span()
  expect(moved.before).toBeLessThan(Date.now() / 1000 - 20)
  expect(Math.abs(moved.before - moved.after - 120)).toBeLessThanOrEqual(2)
  // Two fingers apart: less time, seen closer.
  await touch.send('Input.dispatchTouchEvent', { type: 'touchStart', touchPoints: at(0.45, 0.55) })
  for (let by = 0.08; by < 0.3; by += 0.03) await touch.send('Input.dispatchTouchEvent', { type: 'touchMove', touchPoints: at(0.5 - by, 0.5 + by) })
  await touch.send('Input.dispatchTouchEvent', { type: 'touchEnd', touchPoints: [] })
  await expect.poll(() => span().before - span().after, { timeout: 10_000 }).toBeLessThan(90)
  await page.screenshot({ path: join(PICTURES, 'fingers-390.png') })
  // Up and down is the page's.
  const y = await page.evaluate(() => scrollY)
  await touch.send('Input.synthesizeScrollGesture', { x: box.x + 100, y: box.y + box.height / 2, yDistance: -200 })
  await expect.poll(() => page.evaluate(() => scrollY), { timeout: 10_000 }).toBeGreaterThan(y)
  await context.close()
})

test('a failover is seen', async () => {
  const map = await browser.newPage({ viewport: { width: 1280, height: 800 }, baseURL: child.url })
  await map.goto('/#/topology')
  await map.locator('[data-link][data-up="true"]').first().waitFor()
  const before = await links(map)
  await first.stop('SIGKILL')
  const died = Date.now()
  // Its own samples go on to the other parent.
  await expect.poll(async () => {
    const now = await links(map)
    return [...now.keys()].some((one) => one.endsWith(' true') && !before.has(one))
  }, { timeout: 10_000 * PATIENCE, interval: 50 }).toBe(true)
  const seen = Date.now() - died
  console.log(`the child's map shows its next parent ${seen} ms after the first was killed`)
  expect(seen).toBeLessThan(2_000 * PATIENCE)
  await map.screenshot({ path: join(PICTURES, 'failover-1280.png') })
  await map.close()
})
