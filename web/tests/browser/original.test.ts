/**
 * The dashboard of Debian's package netdata-web, as it is, served by our agent (`[directories] web`): its charts draw, its alarms are listed, no request
 * of it fails. tests/web.sh unpacks it; NETDATA_WEB names its directory.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Agent, makeRoot, REPOSITORY, until } from './agents'

const OURS = process.env.NETDATA_BIN ?? ''
const WEB = process.env.NETDATA_WEB
const PICTURES = process.env.ARTEFACTS ?? join(REPOSITORY, 'target/web')
/** Whom the page itself asks for releases and news, whatever agent it comes from. Here nobody hears of it. */
const ELSEWHERE = ['https://api.github.com', 'https://netdata-news.cdn.prismic.io']

const { root, remove } = makeRoot()
let browser: Browser
let parent: Agent
let child: Agent

beforeAll(async () => {
  if (!WEB) return console.log('skipped: NETDATA_WEB does not name the dashboard of netdata-web')
  mkdirSync(PICTURES, { recursive: true })
  parent = await Agent.make(root, 'served', OURS, undefined, (url) => `[db]\n    mode = dbengine\n[directories]\n    web = ${WEB}\n[registry]\n    registry to announce = ${url}\n[health]\n    script to execute on alarm = /bin/true\n`)
  await parent.start()
  child = await (await Agent.make(root, 'kid', OURS, parent.port, () => '[db]\n    mode = ram\n[health]\n    enabled = no\n')).start()
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'],
  })
  // It shows six minutes, of a young agent in so few points that the first to hold anything may be minutes away.
  const samples = async (path: string) => {
    const answer = await fetch(`${parent.url}${path}/api/v1/data?chart=system.cpu&after=-40&points=40`)
    const { data } = (await answer.json()) as { data: (number | null)[][] }
    return data.filter((row) => row[1] !== null).length >= 30
  }
  for (const path of ['', '/host/kid']) await until(`samples of ${path}`, 60, () => samples(path))
})

afterAll(async () => {
  await browser?.close()
  for (const agent of [child, parent]) await agent?.stop()
  remove()
})

/** A page, and what went wrong in it. */
async function open(path: string): Promise<{ page: Page; complaints: string[]; asked: Set<string> }> {
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, baseURL: parent.url })
  page.setDefaultTimeout(30_000)
  const complaints: string[] = []
  const asked = new Set<string>()
  await page.route(
    (url) => ELSEWHERE.includes(url.origin),
    (route) => route.abort('blockedbyclient'),
  )
  const isOurs = (url: string) => !ELSEWHERE.includes(new URL(url).origin)
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`))
  page.on('request', (request) => {
    const url = new URL(request.url())
    if (['data:', 'blob:'].includes(url.protocol)) return
    if (url.origin === parent.url) asked.add(url.pathname.replace(/^\/+/, '/'))
    else if (isOurs(request.url())) complaints.push(`asked ${url.origin}`)
  })
  page.on('response', (response) => {
    if (response.status() >= 400) complaints.push(`${response.status()} for ${response.url()}`)
  })
  page.on('requestfailed', (request) => {
    // What the page itself takes back, as it does when it is scrolled on, has not failed.
    const why = request.failure()?.errorText ?? ''
    if (isOurs(request.url()) && why !== 'net::ERR_ABORTED') complaints.push(`${why}: ${request.url()}`)
  })
  await page.goto(path)
  return { page, complaints, asked }
}

/** Every chart on the screen, and whether something of it is in colour. */
function visible(page: Page): Promise<{ id: string; drawn: boolean }[]> {
  return page.evaluate(() => {
    const isSeen = (one: Element) => {
      const { top, bottom, height } = one.getBoundingClientRect()
      return height > 100 && top >= 0 && bottom <= innerHeight
    }
    const isColoured = (canvas: HTMLCanvasElement) => {
      if (!canvas.width || !canvas.height) return false
      const { data } = canvas.getContext('2d')!.getImageData(0, 0, canvas.width, canvas.height)
      for (let at = 0; at < data.length; at += 4) {
        const [red, green, blue] = [data[at]!, data[at + 1]!, data[at + 2]!]
        if (data[at + 3]! > 40 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) return true
      }
      return false
    }
    return [...document.querySelectorAll('.netdata-chartblock-container [data-netdata]')].filter(isSeen).map((one) => ({
      id: one.getAttribute('data-netdata') ?? '',
      drawn: [...one.querySelectorAll('canvas')].some(isColoured),
    }))
  })
}

describe.runIf(WEB)('the dashboard of netdata-web', () => {
  test.each(['/', '/host/kid/'])('draws its charts: %s', { timeout: 120_000 }, async (path) => {
    const { page, complaints, asked } = await open(path)
    const drawn = new Set<string>()
    for (let screen = 0; screen < 6; screen += 1) {
      await expect
        .poll(async () => {
          const charts = await visible(page)
          for (const chart of charts) if (chart.drawn) drawn.add(chart.id)
          return charts.length > 0 && charts.every((chart) => chart.drawn) ? 'all drawn' : charts
        }, { timeout: 60_000, interval: 1000 })
        .toBe('all drawn')
      await page.screenshot({ path: join(PICTURES, `netdata-web${path.replaceAll('/', '-')}${screen}.png`) })
      await page.mouse.move(700, 500)
      await page.mouse.wheel(0, 900)
    }
    console.log(`netdata-web at ${path}: ${drawn.size} charts were drawn`)
    expect(drawn.size).toBeGreaterThanOrEqual(5)
    expect(drawn).toContain('system.cpu')
    expect(await page.title()).toContain(path === '/' ? 'served' : 'kid')
    const below = path.slice(0, -1)
    for (const name of ['charts', 'data']) expect(asked).toContain(`${below}/api/v1/${name}`)
    for (const name of ['info', 'registry', 'alarms']) expect([...asked]).toEqual(expect.arrayContaining([expect.stringMatching(`/api/v1/${name}$`)]))
    expect(complaints).toEqual([])
    await page.close()
  })

  test('lists alarms, all of them and what they did', { timeout: 120_000 }, async () => {
    await until('an entry of the alarm log', 60, async () => ((await (await fetch(`${parent.url}/api/v1/alarm_log`)).json()) as unknown[]).length > 0)
    const { page, complaints, asked } = await open('/')
    await page.locator('.netdata-chartblock-container').first().waitFor()
    await page.evaluate("jQuery('#alarmsModal').modal('show')")
    await page.locator('#alarmsModal a[href="#alarms_all"]').click()
    await page.locator('#alarms_all').getByText('system - cpu').first().click()
    await expect.poll(() => asked.has('/api/v1/badge.svg'), { timeout: 15_000 }).toBe(true)
    await page.locator('#alarmsModal a[href="#alarms_log"]').click()
    await page.locator('#alarms_log tbody tr').first().waitFor()
    await expect.poll(() => page.locator('#alarms_log tbody').first().innerText()).toMatch(/CLEAR|UNDEFINED|WARNING|CRITICAL/)
    await page.screenshot({ path: join(PICTURES, 'netdata-web-alarms.png') })
    for (const name of ['alarm_log', 'alarms']) expect(asked).toContain(`/api/v1/${name}`)
    expect(complaints).toEqual([])
    await page.close()
  })
})
