export function AlertsView() { return <p class="note">…</p> }
