/**
 * The dashboard as somebody sees it: a browser, a parent and a child of ours, a child that is Debian's netdata where there is one. Pictures of every view
 * are kept in $ARTEFACTS.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { NodeInstances, StreamPath } from '../../src/api/types'
import { Agent, makeRoot, REPOSITORY, until } from './agents'

const OURS = process.env.NETDATA_BIN ?? ''
const REAL = process.env.NETDATA_REAL
const PICTURES = process.env.ARTEFACTS ?? join(REPOSITORY, 'target/web')
/** Quiet machines keep to the budgets; one that builds and tests beside this gets so many times as much. */
const PATIENCE = Number(process.env.PATIENCE ?? 5)

// Tiers that are there within half a minute.
const PARENT = `[db]
    mode = dbengine
    dbengine tier 1 update every iterations = 5
    dbengine tier 2 update every iterations = 5
[health]
    script to execute on alarm = /bin/true
`
const CHILD = `[db]
    mode = ram
    retention = 600
[health]
    enabled = no
`
const REAL_CHILD = `${CHILD}[plugins]
    python.d = no
    charts.d = no
    go.d = no
`

const { root, remove } = makeRoot()
let browser: Browser
let parent: Agent
let child: Agent
let real: Agent | undefined
let page: Page
/** What must never happen: errors in the console, requests to anybody else. */
const complaints: string[] = []
/** While an agent is away on purpose, that a request failed is no complaint. */
let away = false

async function newPage(agent: Agent, width: number, height: number, scheme: 'light' | 'dark' = 'light'): Promise<Page> {
  const made = await browser.newPage({ viewport: { width, height }, colorScheme: scheme, baseURL: agent.url })
  made.setDefaultTimeout(45_000)
  made.on('console', (message) => {
    const text = message.text()
    if (message.type() === 'error' && !(away && /Failed to load|ERR_/.test(text))) complaints.push(`console: ${text} ${message.location().url}`.slice(0, 300))
  })
  made.on('pageerror', (error) => complaints.push(`error: ${error.message}`))
  made.on('request', (request) => {
    const url = new URL(request.url())
    if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== agent.url) complaints.push(`asked ${url.origin}`)
  })
  return made
}

beforeAll(async () => {
  expect(OURS, 'NETDATA_BIN names the program').not.toBe('')
  mkdirSync(PICTURES, { recursive: true })
  parent = await (await Agent.make(root, 'parent', OURS, undefined, PARENT)).start()
  child = await (await Agent.make(root, 'child', OURS, parent.port, CHILD)).start()
  if (REAL) real = await (await Agent.make(root, 'debian', REAL, parent.port, REAL_CHILD)).start()
  else console.log('no real netdata here: without a child of Debian, then')
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
  })
  page = await newPage(parent, 1280, 800)
})

afterAll(async () => {
  await browser?.close()
  for (const agent of [real, child, parent]) await agent?.stop()
  remove()
})

const ready = (page: Page, chart: string) => page.locator(`[data-chart="${chart}"] [data-state="ready"] canvas`)

test('all of it is small', () => {
  const dist = join(REPOSITORY, 'web/dist')
  const files = readdirSync(dist, { recursive: true, withFileTypes: true }).filter((one) => one.isFile())
  const bytes = files.reduce((sum, one) => sum + gzipSync(readFileSync(join(one.parentPath, one.name))).length, 0)
  console.log(`dashboard: ${bytes} bytes compressed, in ${files.length} files`)
  expect(bytes).toBeLessThan(200 * 1024)
})

test('nodes appear with their state and load', async () => {
  await page.goto('/')
  const names = ['parent', 'child', ...(real ? ['debian'] : [])]
  for (const name of names) await page.locator(`[data-node="${name}"][data-state="live"]`).waitFor()
  await expect.poll(() => page.locator('[data-node="child"] .c-cpu b').innerText(), { timeout: 30_000 }).toMatch(/%$/)
  expect(await page.locator('[data-node="parent"] .c-role').innerText()).toBe('parent')
  await page.getByPlaceholder('name, label').fill('role-of-nobody')
  await page.getByText('No node is like that').waitFor()
  await page.getByPlaceholder('name, label').fill('child')
  await expect.poll(() => page.locator('[data-node]').count()).toBe(real ? 2 : 1)
  expect(page.url()).toContain('q=child')
})

test('the first chart is there at once', async () => {
  const fresh = await newPage(parent, 1280, 800)
  await fresh.goto('/#/charts/child')
  await ready(fresh, 'system.cpu').waitFor()
  const took = await fresh.evaluate(() => performance.now())
  console.log(`first chart after ${Math.round(took)} ms`)
  expect(took).toBeLessThan(1000 * PATIENCE)
  await fresh.close()
})

test('charts move every second', async () => {
  await page.goto('/#/charts/child?after=-60')
  await ready(page, 'system.cpu').waitFor()
  const legend = page.locator('[data-chart="netdata.uptime"] .legend b')
  await page.getByPlaceholder('search metrics').fill('uptime')
  await legend.waitFor()
  const first = await legend.innerText()
  await expect.poll(() => legend.innerText(), { timeout: 20_000 }).not.toBe(first)
})

test('a host has a page of its own path', async () => {
  const own = await newPage(parent, 1280, 800)
  await own.goto('/host/child/')
  await ready(own, 'system.cpu').waitFor()
  expect(await own.title()).toContain('child')
  await own.close()
})

test('zooming out reads other tiers, and back the samples themselves', async () => {
  await until('tier 1', 60, async () => {
    const answer = await fetch(`${parent.url}/host/child/api/v1/data?chart=system.cpu&after=-1800&points=300&options=jsonwrap`)
    return (((await answer.json()) as { db_points_per_tier: number[] }).db_points_per_tier[1] ?? 0) > 0
  })
  await page.goto('/#/charts/child?after=-60')
  await ready(page, 'system.cpu').waitFor()
  const badge = page.locator('[data-chart="system.cpu"] [data-tier]')
  expect(await badge.count()).toBe(0)
  await page.locator('[data-chart="system.cpu"] .plot').focus()
  const press = async (key: string, spans: number[]) => {
    for (const span of spans) {
      await page.keyboard.press(key)
      await expect.poll(() => page.url(), { timeout: 10_000 }).toContain(`after=-${span}`)
    }
  }
  await press('-', [120, 240, 480, 960, 1920])
  await badge.waitFor()
  await press('+', [960, 480, 240, 120, 60])
  await badge.waitFor({ state: 'detached' })
})

test('a span that is dragged over is shown, and a link brings it back', async () => {
  await page.goto('/#/charts/child?after=-120')
  await ready(page, 'system.cpu').waitFor()
  const box = (await page.locator('[data-chart="system.cpu"] .u-over').boundingBox())!
  await page.mouse.move(box.x + box.width * 0.4, box.y + 40)
  await page.mouse.down()
  await page.mouse.move(box.x + box.width * 0.7, box.y + 60, { steps: 5 })
  await page.mouse.up()
  await expect.poll(() => page.url(), { timeout: 10_000 }).toMatch(/after=\d{10}&before=\d{10}/)
  const again = await newPage(parent, 1280, 800)
  await again.goto(page.url())
  await again.getByRole('button', { name: 'Live' }).waitFor()
  await again.getByRole('button', { name: 'Live' }).click()
  await expect.poll(() => again.url(), { timeout: 10_000 }).toMatch(/after=-\d+/)
  await again.close()
})

test('the cursor is in all charts at once', async () => {
  await page.goto('/#/charts/child?after=-60')
  const two = page.locator('.card:has([data-state="ready"] canvas)')
  await two.nth(1).waitFor()
  const box = (await two.nth(0).locator('.u-over').boundingBox())!
  await page.mouse.move(box.x + box.width / 2, box.y + 30)
  for (const at of [0, 1]) await expect.poll(() => two.nth(at).locator('[data-time]').innerText(), { timeout: 10_000 }).toMatch(/\d:\d\d:\d\d/)
  await page.mouse.move(2, 2)
})

test('a chart can be taken away as a file', async () => {
  await page.goto('/#/charts/child?after=-60')
  await ready(page, 'system.cpu').waitFor()
  for (const [what, name] of [['Save as CSV', 'system.cpu.csv'], ['Save as PNG', 'system.cpu.png']] as const) {
    await page.locator('[data-chart="system.cpu"] .menu > button').click()
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: what }).click()])
    expect(file.suggestedFilename()).toBe(name)
    const bytes = readFileSync(await file.path())
    if (name.endsWith('csv')) expect(bytes.toString()).toMatch(/^time,.*user.*\n\d{4}-/)
    else expect(bytes.subarray(1, 4).toString()).toBe('PNG')
  }
  await page.locator('[data-chart="system.cpu"] .menu > button').click()
  await page.getByRole('button', { name: 'Show as table' }).click()
  await page.locator('[data-chart="system.cpu"] tbody tr').first().waitFor()
})

test('nodes are compared in one chart', async () => {
  await page.goto('/#/charts/*?q=system.load&g=node:auto')
  await ready(page, 'system.load').waitFor()
  const names = page.locator('[data-chart="system.load"] .legend-name')
  await expect.poll(() => names.allInnerTexts(), { timeout: 20_000 }).toEqual(expect.arrayContaining(['parent', 'child']))
})

test('the map shows links, and a host its gap map', async () => {
  await page.goto('/#/topology?host=child')
  await page.locator('[data-link][data-up="true"]').first().waitFor()
  expect(await page.locator('[data-link]').count()).toBe(real ? 2 : 1)
  await page.locator('.strip canvas').first().waitFor()
  await page.getByText('→').first().waitFor()
})

test('a function is a table that sorts', async () => {
  await page.goto('/#/top')
  const rows = page.locator('.function tbody tr')
  await rows.first().waitFor()
  const names = () => page.locator('.function tbody tr td:first-child').allInnerTexts()
  const before = await names()
  await page.getByRole('button', { name: 'Node' }).click()
  await expect.poll(names).toEqual(before.toReversed())
})

test('alarms are listed, and silenced with the token only', async () => {
  await page.goto('/#/alerts?tab=all')
  await page.locator('.alerts tbody tr').first().waitFor()
  await page.getByRole('button', { name: 'Silencing' }).click()
  away = true // a refusal is an error of the console, too
  await page.getByPlaceholder('token').fill('not-the-token')
  await page.getByRole('button', { name: 'Unlock' }).click()
  await page.getByText('does not take this token').waitFor()
  away = false
  await page.getByPlaceholder('token').fill(parent.token)
  await page.getByRole('button', { name: 'Unlock' }).click()
  await page.getByText('Nothing is silenced.').waitFor()
  await page.getByLabel('Alarm', { exact: true }).fill('10min*')
  await page.getByRole('button', { name: 'Silence', exact: true }).click()
  await page.getByText('alarm: 10min*').waitFor()
  await page.getByRole('button', { name: 'End all of this' }).click()
  await page.getByText('Nothing is silenced.').waitFor()
})

test('configuration is shown without its secrets', async () => {
  await page.goto('/#/config')
  await page.getByText('run as user').waitFor()
  await page.getByPlaceholder('section, option').fill('hostname')
  await expect.poll(() => page.locator('.conf .set dd').first().innerText()).toBe('parent')
  expect(await page.content()).not.toContain(parent.token)
})

test('thousands of nodes are no more work than those on the screen', async () => {
  const many = await newPage(parent, 1280, 800)
  const COUNT = 3000
  const multiply = <T extends { mg: string; nm: string; ni: number }>(nodes: T[], change: (node: T, n: number) => T): T[] => {
    const like = nodes.find((one) => one.nm === 'child')!
    return [...nodes, ...Array.from({ length: COUNT }, (_, n) => change({ ...like, mg: `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`, nm: `web-${String(n).padStart(4, '0')}`, ni: nodes.length + n }, n))]
  }
  await many.route(/node_instances/, async (route) => {
    const answer = (await (await route.fetch()).json()) as NodeInstances
    answer.nodes = multiply(answer.nodes, (node) => node)
    await route.fulfill({ json: answer })
  })
  await many.route(/stream_path/, async (route) => {
    const answer = (await (await route.fetch()).json()) as StreamPath
    answer.nodes = multiply(answer.nodes, (node) => ({ ...node, streaming_path: node.streaming_path.map((hop, at) => (at ? hop : { ...hop, host_id: node.mg, hostname: node.nm })) }))
    await route.fulfill({ json: answer })
  })
  let asked = 0
  await many.route(/v2\/data/, async (route) => {
    asked += 1
    const result = { labels: ['time'], data: [] }
    const view = { update_every: 5, units: '', title: '', chart_type: 'line', dimensions: { ids: [], names: [] } }
    await route.fulfill({ json: { summary: { nodes: [] }, result, view, db: { update_every: 1, first_entry: 0, last_entry: 0, per_tier: [] } } })
  })
  await many.goto('/')
  await many.locator('[data-node="web-0000"]').waitFor()
  expect(await many.locator('[data-node]').count()).toBeLessThan(60)
  const took = await many.evaluate(async () => {
    const frames: number[] = []
    for (let step = 0; step < 60; step += 1) {
      scrollBy(0, 900)
      const began = performance.now()
      await new Promise(requestAnimationFrame)
      frames.push(performance.now() - began)
    }
    return frames.sort((a, b) => a - b)[Math.floor(frames.length / 2)]!
  })
  // Who was scrolled past was not asked for.
  expect(asked).toBeLessThan(20)
  console.log(`scrolling through ${COUNT} nodes: ${took.toFixed(1)} ms a frame`)
  expect(took).toBeLessThan(34 * PATIENCE)
  await many.getByPlaceholder('name, label').fill('web-2999')
  await expect.poll(() => many.locator('[data-node]').count()).toBe(1)
  await many.screenshot({ path: join(PICTURES, 'many-nodes-1280.png') })
  await many.goto('/#/topology')
  await many.getByText(`${COUNT + (real ? 2 : 1)} children`).waitFor()
  await many.screenshot({ path: join(PICTURES, 'many-topology-1280.png') })
  await many.close()
})

test('keys alone are enough', async () => {
  await page.goto('/')
  await page.locator('[data-node="child"]').waitFor()
  await page.keyboard.press('Tab')
  await page.keyboard.press('Enter')
  expect(await page.evaluate(() => document.activeElement?.id)).toBe('main')
  // Everything that can be pressed has a name.
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll('button, a[href], input, select')].filter((one) => !(one.textContent?.trim() || one.getAttribute('aria-label') || one.closest('label')?.textContent?.trim())).map((one) => one.outerHTML),
  )
  expect(nameless).toEqual([])
})

test('pictures of every view, wide and narrow', async () => {
  const views = ['nodes', 'charts/child', 'charts/*?g=node:auto', 'topology?host=child', 'top', 'alerts?tab=all', 'alerts?tab=log', 'config']
  for (const [width, height, scheme] of [[1280, 800, 'light'], [1280, 800, 'dark'], [390, 844, 'light']] as const) {
    const made = await newPage(parent, width, height, scheme)
    for (const view of views) {
      await made.goto(`/#/${view}`)
      await made.waitForTimeout(900)
      const name = view.replace(/\?.*/, '').replaceAll('/', '-').replace('*', 'all') + (view.includes('tab=log') ? '-log' : '')
      await made.screenshot({ path: join(PICTURES, `${name}-${width}-${scheme}.png`) })
      // Nothing is wider than the screen, on a phone either.
      const wide = await made.evaluate(() => {
        if (document.documentElement.scrollWidth <= innerWidth) return []
        return [...document.querySelectorAll('main *')].filter((one) => one.getBoundingClientRect().right > innerWidth && !one.closest('.scroll-x')).map((one) => one.outerHTML.slice(0, 120))
      })
      expect(wide, `${view} at ${width}`).toEqual([])
    }
    await made.close()
  }
})

test('a page with twenty charts leaves the processor alone', async () => {
  const wall = await newPage(parent, 1900, 2800)
  await wall.goto('/#/charts/child?')
  await expect.poll(() => wall.locator('.plot[data-state="ready"]').count(), { timeout: 30_000 }).toBeGreaterThanOrEqual(20)
  await page.goto('about:blank')
  const session = await browser.newBrowserCDPSession()
  const cpu = async () => {
    const { processInfo } = await session.send('SystemInfo.getProcessInfo')
    const sum = (of: typeof processInfo) => of.reduce((sum, one) => sum + one.cpuTime, 0)
    return { pages: sum(processInfo.filter((one) => one.type === 'renderer')), all: sum(processInfo) }
  }
  const [before, began] = [await cpu(), Date.now()]
  await wall.waitForTimeout(8_000)
  const [after, seconds] = [await cpu(), (Date.now() - began) / 1000]
  const share = (after.pages - before.pages) / seconds
  console.log(`${await wall.locator('.plot[data-state="ready"]').count()} charts take ${(share * 100).toFixed(1)}% of a core, ${(((after.all - before.all) / seconds) * 100).toFixed(1)}% with the rest of a browser that has no graphics card`)
  expect(share).toBeLessThan(0.1 * PATIENCE)
  await wall.close()
})

test('nothing was complained about, nobody else was asked', () => {
  expect(complaints).toEqual([])
})

test('a parent that dies is seen, by its own page and by the map of its child', async () => {
  await page.goto(`${parent.url}/#/nodes`)
  await page.locator('[data-node="child"]').waitFor()
  const map = await newPage(child, 1280, 800)
  await map.goto('/#/topology')
  await map.locator('[data-link][data-up="true"]').waitFor()
  away = true
  await parent.stop('SIGKILL')
  const died = Date.now()
  await map.locator('[data-link][data-up="false"]').waitFor()
  console.log(`the child's map shows the end of its parent after ${Date.now() - died} ms`)
  expect(Date.now() - died).toBeLessThan(2_000 * PATIENCE)
  await page.getByText('The agent is gone').waitFor()
  await page.screenshot({ path: join(PICTURES, 'agent-gone-1280.png') })
  await map.screenshot({ path: join(PICTURES, 'parent-gone-1280.png') })
  // Long enough for a hole in the parent's own past that the map of gaps shows.
  await page.waitForTimeout(6_000)
  await parent.start()
  await map.locator('[data-link][data-up="true"]').waitFor()
  await page.getByText('The agent is gone').waitFor({ state: 'detached' })
  away = false
  await map.close()
  await page.goto(`${parent.url}/#/topology?host=parent&gaps=10m`)
  await page.locator('.gap-list li').first().waitFor()
  await page.screenshot({ path: join(PICTURES, 'gap-map-1280.png') })
})
