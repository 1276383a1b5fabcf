/** What there is to chart, put into sections as the menu shows them. */
import type { ChartInfo, ContextInfo } from '../api/types'

/** A chart of the page, whatever its rows come from. */
export type Entry = {
  /** Names it in links. */
  anchor: string
  name: string
  title: string
  section: string
  family: string
  priority: number
  units: string
  type: 'line' | 'area' | 'stacked'
  every: number
  /** The first second that is kept. */
  first: number
  context: string
  /** Keys of its labels. */
  labels: string[]
  /** What a search looks at. */
  words: string
}

export type Section = { id: string; title: string; families: { id: string; name: string; entries: Entry[] }[]; count: number }

const TITLES: Record<string, string> = {
  system: 'System', cpu: 'Processors', mem: 'Memory', disk: 'Disks', net: 'Network interfaces', ip: 'IP', ipv4: 'IPv4', ipv6: 'IPv6',
  netfilter: 'Connection tracking', apps: 'Applications', users: 'Users', groups: 'Groups', services: 'Services', cgroup: 'Containers',
  netdata: 'This agent', statsd: 'StatsD', sensors: 'Sensors', nfs: 'NFS', zfs: 'ZFS', btrfs: 'Btrfs', mdstat: 'Software RAID', example: 'Example',
}

const slug = (text: string) => text.replace(/[^A-Za-z0-9]+/g, '-')

/** Titles of charts name them in parentheses; the card shows names apart. */
export function plainTitle(title: string, name: string): string {
  return title.endsWith(`(${name})`) ? title.slice(0, -name.length - 2).trim() : title
}

function sectionOf(context: string, id: string): string {
  const first = (context.split('.')[0] || id.split('.')[0] || 'other').replace(/_ext$/, '')
  // A container has a section of its own, as in its chart's id.
  return first === 'cgroup' ? (id.split('.')[0] ?? first) : first
}

export function entryOfChart(chart: ChartInfo): Entry {
  const dimensions = Object.values(chart.dimensions).map((one) => one.name)
  const labels = Object.values(chart.chart_labels ?? {})
  return {
    anchor: `c-${slug(chart.id)}`,
    name: chart.id,
    title: plainTitle(chart.title, chart.name),
    section: sectionOf(chart.context, chart.id),
    family: chart.family,
    priority: chart.priority,
    units: chart.units,
    type: chart.chart_type,
    every: chart.update_every,
    first: chart.first_entry,
    context: chart.context,
    labels: Object.keys(chart.chart_labels ?? {}),
    words: [chart.id, chart.name, chart.title, chart.context, chart.family, chart.units, ...dimensions, ...labels].join(' ').toLowerCase(),
  }
}

export function entryOfContext(id: string, context: ContextInfo): Entry {
  return {
    anchor: `c-${slug(id)}`,
    name: id,
    // Where nodes call it by different words, its name says most.
    title: /^\W*x\W*$/.test(context.title) ? id : context.title,
    section: sectionOf(id, id),
    family: context.family,
    priority: context.priority,
    units: context.units,
    type: context.chart_type,
    every: 1,
    first: context.first_entry,
    context: id,
    labels: Object.keys(context.labels ?? {}),
    words: [id, context.title, context.family, context.units, ...(context.dimensions ?? [])].join(' ').toLowerCase(),
  }
}

/** Sections and families in the order of their first chart; `typed` keeps those with all its words. */
export function sections(entries: Entry[], typed: string): Section[] {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean)
  const found = entries.filter((entry) => words.every((word) => entry.words.includes(word)))
  found.sort((a, b) => a.priority - b.priority || a.name.localeCompare(b.name))
  const out = new Map<string, Section>()
  for (const entry of found) {
    let section = out.get(entry.section)
    if (!section) {
      section = { id: `s-${slug(entry.section)}`, title: TITLES[entry.section] ?? entry.section, families: [], count: 0 }
      out.set(entry.section, section)
    }
    let family = section.families.find((one) => one.name === entry.family)
    if (!family) {
      family = { id: `${section.id}-${slug(entry.family)}`, name: entry.family, entries: [] }
      section.families.push(family)
    }
    family.entries.push(entry)
    section.count += 1
  }
  return [...out.values()]
}
