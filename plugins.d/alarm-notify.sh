#!/bin/bash
# Tells people of an alarm. The agent runs it once for each notification, with the arguments listed below; whom and how it tells stands in
# health_alarm_notify.conf (edit-config health_alarm_notify.conf), read from the stock directory and then from the user's.
#
#   alarm-notify.sh test [ROLE]      sends WARNING, CRITICAL and CLEAR of a made-up alarm to a role (sysadmin)
#   alarm-notify.sh dump_methods     names the methods there are
#
# Secrets never stand on a command line: curl reads its address, headers and body from its standard input.
# The exit code is 0 when every method that was tried worked, or none was to be tried.
set -u

methods="email syslog webhook slack discord ntfy telegram pd custom"

say() { printf '%s: alarm-notify.sh: %s\n' "$(date '+%F %T')" "$*" >&2; }

if [ "${1-}" = dump_methods ]; then
    for method in $methods; do echo "${method^^}"; done
    exit 0
fi

# With more words it is an alarm, of a host or for a role of that name.
if [ $# -le 2 ] && { [ "${1-}" = test ] || [ "${2-}" = test ]; }; then
    role=${2-sysadmin}
    [ "$role" != test ] || role=$1
    now=$(date +%s) last=CLEAR id=1 failed=0
    for status in WARNING CRITICAL CLEAR; do
        echo "# SENDING TEST $status ALARM TO ROLE: $role" >&2
        if "$0" "$role" "$(hostname)" 1 1 "$id" "$now" test_alarm test.chart test.family "$status" "$last" 100 90 "1@test" 60 90 \
            units "this is a test, nothing is wrong" "100 units" "90 units" '$this > 95' '[ $this = 100 ]' 0 0; then
            echo "# OK" >&2
        else
            echo "# FAILED" >&2
            failed=1
        fi
        last=$status id=$((id + 1))
    done
    exit $failed
fi

if [ $# -lt 20 ]; then
    say "needs the arguments of an alarm; to try it: $0 test"
    exit 1
fi

# ---------------------------------------------------------------- what happened
recipients=$1 host=$2 unique_id=$3 event_id=$5 when=$6 name=$7 chart=$8 family=$9
status=${10} old_status=${11} value=${12} src=${14} duration=${15} non_clear=${16} info=${18} value_string=${19}
expression=${21-} variables=${22-} total_warnings=${23-0} total_critical=${24-0} class=${27-} edit=${28-}
export unique_id event_id value

# ---------------------------------------------------------------- configuration
curl='' sendmail='' logger=''
for method in $methods; do
    declare -A "role_recipients_$method"
    declare "SEND_${method^^}=NO" "DEFAULT_RECIPIENT_${method^^}="
done
EMAIL_SENDER='' EMAIL_CHARSET=UTF-8 EMAIL_THREADING=YES
SYSLOG_FACILITY=local6
WEBHOOK_URL='' WEBHOOK_TOKEN=''
SLACK_WEBHOOK_URL='' DISCORD_WEBHOOK_URL=''
NTFY_USERNAME='' NTFY_PASSWORD='' NTFY_ACCESS_TOKEN=''
TELEGRAM_BOT_TOKEN=''
use_fqdn=NO images_base_url='' clear_alarm_always=NO
export use_fqdn images_base_url
custom_sender() { say "there is no custom_sender() in health_alarm_notify.conf"; return 1; }

# Files written for the original set arrays of methods that are not here.
set +u
for directory in "${NETDATA_STOCK_CONFIG_DIR:-/usr/lib/netdata/conf.d}" "${NETDATA_USER_CONFIG_DIR:-/etc/netdata}"; do
    file=$directory/health_alarm_notify.conf
    if [ -f "$file" ]; then
        # shellcheck source=/dev/null
        . "$file" || say "cannot read '$file'"
    fi
done
set -u
: "${curl:=$(command -v curl)}" "${logger:=$(command -v logger)}"
: "${sendmail:=$(PATH=$PATH:/usr/sbin:/usr/lib command -v sendmail)}"

# ---------------------------------------------------------------- who is told
# wanted FILTERS: whether somebody with |critical, |nowarn or |noclear behind the name wants to hear of this
wanted() {
    case "|$1|" in *"|critical|"*) [ "$status" = CRITICAL ] || [ "$old_status" = CRITICAL ] || return 1 ;; esac
    case "|$1|" in *"|nowarn|"*) [ "$status" != WARNING ] || return 1 ;; esac
    case "|$1|" in *"|noclear|"*) [ "$status" != CLEAR ] || return 1 ;; esac
}

# recipients_of METHOD: those of all roles of the alarm, one a line
recipients_of() {
    local -n by_role="role_recipients_$1" default="DEFAULT_RECIPIENT_${1^^}"
    local role one
    for role in ${recipients//,/ }; do
        [ "$role" != silent ] || continue
        local list=${by_role[$role]-$default}
        for one in ${list//,/ }; do
            [ "$one" != disabled ] || continue
            if [ "$one" = "${one%%|*}" ] || wanted "${one#*|}"; then echo "${one%%|*}"; fi
        done
    done | sort -u
}

# ---------------------------------------------------------------- what is said
lasting() {
    local s=$1 text=''
    ((s >= 86400)) && text+="$((s / 86400)) days "
    ((s >= 3600)) && text+="$((s / 3600 % 24)) hours "
    ((s >= 60)) && text+="$((s / 60 % 60)) minutes "
    echo "$text$((s % 60)) seconds"
}

case $status in
    WARNING) word="needs attention" colour='#e67e22' number=15105570 level=warning priority=4 severity=warning ;;
    CRITICAL) word="is critical" colour='#c0392b' number=12597547 level=crit priority=5 severity=critical ;;
    CLEAR) word="recovered" colour='#27ae60' number=2600544 level=info priority=3 severity=info ;;
    *) say "nobody is told of status '$status'"; exit 0 ;;
esac
if [ "$status" = CLEAR ] && [ "$old_status" != WARNING ] && [ "$old_status" != CRITICAL ] && [ "$clear_alarm_always" != YES ]; then
    say "nobody is told that '$name' is CLEAR, as it was not raised before"
    exit 0
fi
title="$host $word, $chart ($family), ${name//_/ } = $value_string"
time_text=$(date -d "@$when" '+%F %T %Z' 2>/dev/null || echo "$when")
text="$info
status: $status, was $old_status for $(lasting "$duration")
value: $value_string
chart: $chart ($family) on $host, at $time_text"
[ "$status" != CLEAR ] || [ "$non_clear" -le 0 ] || text+="
it was raised for $(lasting "$non_clear")"
details="alarm: $name${class:+, class $class}
expression: $expression $variables
other alarms here: $total_critical critical, $total_warnings warning
source: $src
${edit:+edit it: $edit}"

# json TEXT: a string of JSON
json() {
    local s=$1
    s=${s//\\/\\\\} s=${s//\"/\\\"} s=${s//$'\n'/\\n} s=${s//$'\t'/\\t}
    printf '"%s"' "${s//[[:cntrl:]]/ }"
}

# quoted TEXT: a value of a curl configuration
quoted() {
    local s=$1
    s=${s//\\/\\\\} s=${s//\"/\\\"} s=${s//$'\n'/\\n} s=${s//$'\r'/\\r} s=${s//$'\t'/\\t}
    printf '"%s"' "$s"
}

# post URL BODY [HEADER...]: whether the answer is a good one
post() {
    local url=$1 body=$2 code header
    shift 2
    if [ -z "$curl" ]; then
        say "there is no curl"
        return 1
    fi
    code=$({
        echo "url = $(quoted "$url")"
        for header in "$@"; do echo "header = $(quoted "$header")"; done
        echo "data-binary = $(quoted "$body")"
    } | "$curl" --silent --show-error --max-time 30 --retry 2 --output /dev/null --write-out '%{http_code}' --config -) || code=${code:-000}
    case $code in
        2??) return 0 ;;
        *) say "an answer with HTTP status $code"; return 1 ;;
    esac
}

# docurl ARGUMENT...: for custom_sender() written for the original; prints the status
docurl() { "$curl" --silent --max-time 30 --output /dev/null --write-out '%{http_code}' "$@"; }

# ---------------------------------------------------------------- senders: each gets one recipient
send_email() {
    if [ -z "$sendmail" ]; then
        say "there is no sendmail"
        return 1
    fi
    {
        [ -z "$EMAIL_SENDER" ] || echo "From: ${EMAIL_SENDER//$'\n'/ }"
        echo "To: $1"
        # a header is one line of ASCII
        printf 'Subject: =?%s?B?%s?=\n' "$EMAIL_CHARSET" "$(printf '%s' "$title" | base64 -w 0)"
        [ "$EMAIL_THREADING" != YES ] || echo "References: <$(printf '%s' "$host.$chart.$name" | tr -c 'A-Za-z0-9.\n' _)@alarms>"
        echo "MIME-Version: 1.0"
        echo "Content-Type: text/plain; charset=$EMAIL_CHARSET"
        echo "Content-Transfer-Encoding: 8bit"
        printf 'X-Netdata-Severity: %s\n\n%s\n\n%s\n' "${status,,}" "$text" "$details"
    } | "$sendmail" -t
}

send_syslog() {
    local facility=$SYSLOG_FACILITY
    [ "$1" = syslog ] || facility=${1%%.*}
    if [ -z "$logger" ]; then
        say "there is no logger"
        return 1
    fi
    "$logger" -t netdata -p "$facility.$level" -- "${title//$'\n'/ }: ${info//$'\n'/ }"
}

send_webhook() {
    local body
    body="{\"host\":$(json "$host"),\"alarm\":$(json "$name"),\"chart\":$(json "$chart"),\"family\":$(json "$family"),\"status\":$(json "$status"),\
\"old_status\":$(json "$old_status"),\"when\":$when,\"duration\":$duration,\"value\":$(json "$value_string"),\"info\":$(json "$info"),\
\"class\":$(json "$class"),\"source\":$(json "$src"),\"recipient\":$(json "$1")}"
    post "$WEBHOOK_URL" "$body" "Content-Type: application/json" ${WEBHOOK_TOKEN:+"Authorization: Bearer $WEBHOOK_TOKEN"}
}

send_slack() {
    local channel=''
    # A webhook of today has its own channel; # stands for that.
    [ "$1" = '#' ] || [ "$1" = sysadmin ] || channel="\"channel\":$(json "$1"),"
    post "$SLACK_WEBHOOK_URL" "{${channel}\"username\":$(json "netdata on $host"),\"text\":$(json "$title"),\"attachments\":[{\"color\":\"$colour\",\
\"text\":$(json "$text"),\"footer\":$(json "$details"),\"ts\":$when}]}" "Content-Type: application/json"
}

send_discord() {
    post "$DISCORD_WEBHOOK_URL" "{\"username\":$(json "netdata on $host"),\"embeds\":[{\"title\":$(json "${title:0:250}"),\"color\":$number,\
\"description\":$(json "${text:0:3900}"),\"footer\":{\"text\":$(json "${details:0:2000}")}}]}" "Content-Type: application/json"
}

send_ntfy() {
    local sign=()
    if [ -n "$NTFY_ACCESS_TOKEN" ]; then
        sign=("Authorization: Bearer $NTFY_ACCESS_TOKEN")
    elif [ -n "$NTFY_USERNAME" ]; then
        sign=("Authorization: Basic $(printf '%s:%s' "$NTFY_USERNAME" "$NTFY_PASSWORD" | base64 -w 0)")
    fi
    post "$1" "$text" "Title: ${title//$'\n'/ }" "Priority: $priority" "Tags: $severity" "${sign[@]}"
}

send_telegram() {
    local quiet=false
    [ "$status" = CRITICAL ] || quiet=true
    post "https://api.telegram.org/bot$TELEGRAM_BOT_TOKEN/sendMessage" "{\"chat_id\":$(json "$1"),\"disable_notification\":$quiet,\
\"text\":$(json "$title"$'\n'"$text")}" "Content-Type: application/json"
}

send_pd() {
    local action=trigger
    [ "$status" != CLEAR ] || action=resolve
    post "https://events.pagerduty.com/v2/enqueue" "{\"routing_key\":$(json "$1"),\"event_action\":\"$action\",\
\"dedup_key\":$(json "$host.$chart.$name"),\"payload\":{\"summary\":$(json "${title:0:1000}"),\"source\":$(json "$host"),\"severity\":\"$severity\",\
\"component\":$(json "$chart"),\"class\":$(json "$class"),\"custom_details\":{\"text\":$(json "$text"),\"details\":$(json "$details")}}}" \
        "Content-Type: application/json"
}

send_custom() { custom_sender "$1"; }

# ---------------------------------------------------------------- sending
# ready METHOD: whether it is wanted and has what it needs
ready() {
    local -n send="SEND_${1^^}"
    [ "$send" = YES ] || return 1
    case $1 in
        webhook) [ -n "$WEBHOOK_URL" ] ;;
        slack) [ -n "$SLACK_WEBHOOK_URL" ] ;;
        discord) [ -n "$DISCORD_WEBHOOK_URL" ] ;;
        telegram) [ -n "$TELEGRAM_BOT_TOKEN" ] ;;
        email) [ -n "$sendmail" ] ;;
        *) true ;;
    esac
}

failed=0
for method in $methods; do
    ready "$method" || continue
    while IFS= read -r recipient <&3; do
        if "send_$method" "$recipient"; then
            say "sent $method notification for: $host $chart.$name is $status"
        else
            say "FAILED to send $method notification for: $host $chart.$name is $status"
            failed=1
        fi
    done 3< <(recipients_of "$method")
done
exit $failed
