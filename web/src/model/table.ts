/** Tables as functions answer them: which columns to show, what a cell says, what comes first. */
import type { Column, Table } from '../api/types'
import { duration, moment } from './time'
import { number } from './units'

/** The columns, in their order, without those that only style a row; hidden ones where `all` is wanted. */
export function shownColumns(table: Table, all: boolean): [string, Column][] {
  const real = Object.entries(table.columns).filter(([, one]) => !one.dummy && one.visualization !== 'rowOptions')
  // What no row says needs no column.
  const told = ([, one]: [string, Column]) => all || one.unique_key || table.data.some((row) => row[one.index] !== null && row[one.index] !== 'unknown' && row[one.index] !== '')
  return real.filter(([, one]) => all || one.visible).filter(told).sort(([, a], [, b]) => a.index - b.index)
}

/** Units without which a number says nothing; others (processes, threads) the head of the column says already. */
const MEASURES = /^(%|[KMGTP]?i?B(\/s)?|[kMGT]?bits?(\/s)?|m?s|µs|[kMG]?Hz)$/

/** Whether a column holds numbers, by what is in it: types are many, and plugins make up more. */
export function numeric(table: Table, column: Column): boolean {
  const first = table.data.find((row) => row[column.index] !== null && row[column.index] !== undefined)
  return typeof first?.[column.index] === 'number'
}

export function cell(value: unknown, column: Column): string {
  if (value === null || value === undefined || value === '') return '–'
  if (Array.isArray(value)) return value.join(' ')
  const transform = column.value_options?.transform
  if (typeof value === 'number') {
    if (transform === 'duration' || column.type === 'duration') return duration(value)
    if (transform === 'datetime' || transform === 'datetime_ms' || column.type === 'timestamp') return moment(value > 1e11 ? value / 1000 : value)
    const units = column.units ?? column.value_options?.units
    return units && MEASURES.test(units) ? `${number(value)} ${units}` : number(value)
  }
  if (typeof value === 'object') return JSON.stringify(value)
  return String(value)
}

/** What comes first of two values; what is not there comes last. */
export function rank(a: unknown, b: unknown): number {
  const empty = (value: unknown) => value === null || value === undefined || value === ''
  if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b))
  if (typeof a === 'number' && typeof b === 'number') return a - b
  return String(a).localeCompare(String(b), undefined, { numeric: true })
}
