#!/bin/sh
# Prints what can be known about this machine, one NAME=value per line, for the agent that starts it.
#
# It runs at every start of the agent, so it starts few processes and waits for nobody: the cloud provider is asked
# only when NETDATA_DETECT_CLOUD is "yes".
#
# Copyright the netdata-rs authors. Licensed under GPL-3.0-or-later.

LC_ALL=C
export LC_ALL
proc="${NETDATA_HOST_PREFIX:-}/proc"
sys="${NETDATA_HOST_PREFIX:-}/sys"

# ---------------------------------------------------------------- kernel

kernel=$(uname -s -r -m 2>/dev/null)
kernel_name=${kernel%% *}
rest=${kernel#* }
kernel_version=${rest%% *}
architecture=${rest##* }

# ---------------------------------------------------------------- virtualisation and containers

plain_word() {
    # Lower case, with dashes for blanks.
    printf '%s' "$1" | tr 'A-Z ' 'a-z-'
}

virtualization=unknown
virt_detection=none
if [ -n "${VIRTUALIZATION:-}" ]; then
    virtualization=$VIRTUALIZATION
    virt_detection=provided
elif command -v systemd-detect-virt >/dev/null 2>&1; then
    virtualization=$(systemd-detect-virt -v 2>/dev/null)
    virt_detection=systemd-detect-virt
elif [ -r "$sys/class/dmi/id/product_name" ] && grep -q '^flags.* hypervisor' "$proc/cpuinfo" 2>/dev/null; then
    read -r product <"$sys/class/dmi/id/product_name"
    virtualization=$(plain_word "$product")
    virt_detection=dmi
elif [ -r "$proc/cpuinfo" ] && ! grep -q '^flags.* hypervisor' "$proc/cpuinfo"; then
    virtualization=none
    virt_detection=cpuinfo
fi
[ -n "$virtualization" ] || virtualization=unknown

# systemd-nspawn, LXC and others say so in the environment.
said=${container:-}
container=unknown
container_detection=none
if command -v systemd-detect-virt >/dev/null 2>&1; then
    container=$(systemd-detect-virt -c 2>/dev/null)
    container_detection=systemd-detect-virt
fi
first=
[ -r /proc/1/sched ] && read -r first _ </proc/1/sched
if [ "$container" = unknown ] || [ "$container" = none ]; then
    if [ "$first" = netdata ]; then
        container=container
        container_detection=process
    elif [ -e /bin/running-in-container ]; then
        container=container
        container_detection=/bin/running-in-container
    elif [ -n "$said" ]; then
        container=lxc
        container_detection=environment
    elif [ -e /.dockerenv ]; then
        container=docker
        container_detection=dockerenv
    fi
fi

# ---------------------------------------------------------------- operating system

# Reads an os-release or lsb-release file into os_*, without running it.
read_release() {
    while IFS='=' read -r name value; do
        case $value in
        \"*\") value=${value#\"} value=${value%\"} ;;
        \'*\') value=${value#\'} value=${value%\'} ;;
        esac
        case $name in
        NAME | DISTRIB_ID) os_name=$value ;;
        ID) os_id=$value ;;
        ID_LIKE) os_id_like=$value ;;
        VERSION | DISTRIB_DESCRIPTION) os_version=$value ;;
        VERSION_ID | DISTRIB_RELEASE) os_version_id=$value ;;
        esac
    done <"$1"
    os_detection=$1
}

detect_os() {
    os_name=unknown os_id=unknown os_id_like=unknown os_version=unknown os_version_id=unknown os_detection=unknown
    for file in "$1/etc/os-release" "$1/etc/lsb-release"; do
        if [ -r "$file" ]; then
            read_release "$file"
            return
        fi
    done
}

print_os() {
    printf '%s\n' "NETDATA_$1_OS_NAME=$os_name" "NETDATA_$1_OS_ID=$os_id" "NETDATA_$1_OS_ID_LIKE=$os_id_like" \
        "NETDATA_$1_OS_VERSION=$os_version" "NETDATA_$1_OS_VERSION_ID=$os_version_id" "NETDATA_$1_OS_DETECTION=$os_detection"
}

if [ "$container" = unknown ] || [ "$container" = none ]; then
    os_name=none os_id=none os_id_like=none os_version=none os_version_id=none os_detection=none
    print_os CONTAINER
    detect_os ""
    print_os HOST
else
    detect_os ""
    print_os CONTAINER
    detect_os /host
    print_os HOST
fi
echo "NETDATA_CONTAINER_IS_OFFICIAL_IMAGE=${NETDATA_OFFICIAL_IMAGE:-false}"

k8s=false
if [ -n "${KUBERNETES_SERVICE_HOST:-}" ] && [ -n "${KUBERNETES_SERVICE_PORT:-}" ]; then
    k8s=true
elif [ -d /var/lib/kubelet ] && pidof kubelet >/dev/null 2>&1; then
    k8s=true
fi

printf '%s\n' "NETDATA_HOST_IS_K8S_NODE=$k8s" "NETDATA_SYSTEM_KERNEL_NAME=$kernel_name" "NETDATA_SYSTEM_KERNEL_VERSION=$kernel_version" \
    "NETDATA_SYSTEM_ARCHITECTURE=$architecture" "NETDATA_SYSTEM_VIRTUALIZATION=$virtualization" "NETDATA_SYSTEM_VIRT_DETECTION=$virt_detection" \
    "NETDATA_SYSTEM_CONTAINER=$container" "NETDATA_SYSTEM_CONTAINER_DETECTION=$container_detection"

# ---------------------------------------------------------------- processors and memory

frequency=
for file in base_frequency cpuinfo_max_freq; do
    if [ -z "$frequency" ] && [ -r "$sys/devices/system/cpu/cpu0/cpufreq/$file" ]; then
        # In kHz.
        read -r khz <"$sys/devices/system/cpu/cpu0/cpufreq/$file"
        [ "${khz:-0}" -gt 0 ] 2>/dev/null && frequency=${khz}000
    fi
done

awk -v frequency="$frequency" -v cpuinfo="$proc/cpuinfo" -v meminfo="$proc/meminfo" '
    function after_colon(line) { sub(/^[^:]*:[ \t]*/, "", line); return line }
    BEGIN {
        vendor = model = "unknown"
        while ((getline line < cpuinfo) > 0) {
            if (line ~ /^processor[ \t]*:/) count++
            else if (line ~ /^(vendor_id|CPU implementer)[ \t]*:/) vendor = after_colon(line)
            else if (line ~ /^(model name|Model|cpu)[ \t]*:/) model = after_colon(line)
            else if (line ~ /^(cpu MHz|clock)[ \t]*:/ && frequency == "") frequency = sprintf("%.0f", after_colon(line) * 1000000)
        }
        detection = count > 0 ? "procfs" : "none"
        if (frequency == "") frequency = "unknown"
        print "NETDATA_SYSTEM_CPU_LOGICAL_CPU_COUNT=" (count > 0 ? count : "unknown")
        print "NETDATA_SYSTEM_CPU_VENDOR=" vendor
        print "NETDATA_SYSTEM_CPU_MODEL=" model
        print "NETDATA_SYSTEM_CPU_FREQ=" frequency
        print "NETDATA_SYSTEM_CPU_DETECTION=" detection
        ram = "unknown"
        while ((getline line < meminfo) > 0)
            if (line ~ /^MemTotal:/) { split(line, words, " "); ram = sprintf("%.0f", words[2] * 1024) }
        print "NETDATA_SYSTEM_TOTAL_RAM=" ram
        print "NETDATA_SYSTEM_RAM_DETECTION=" (ram == "unknown" ? "none" : "procfs")
    }'

# ---------------------------------------------------------------- disks

sectors=0
disk_detection=none
for disk in "$sys"/block/sd* "$sys"/block/hd* "$sys"/block/nvme* "$sys"/block/vd* "$sys"/block/xvd* "$sys"/block/mmcblk* "$sys"/block/dasd*; do
    [ -r "$disk/size" ] || continue
    removable=0
    [ -r "$disk/removable" ] && read -r removable <"$disk/removable"
    [ "$removable" = 0 ] || continue
    read -r size <"$disk/size"
    sectors=$((sectors + size))
    disk_detection=sysfs
done
total=unknown
if [ "$disk_detection" = sysfs ]; then
    total=$((sectors * 512))
elif command -v df >/dev/null 2>&1; then
    total=$(df -P -k -l -x tmpfs -x devtmpfs -x overlay 2>/dev/null | awk 'NR > 1 { kib += $2 } END { printf "%.0f", kib * 1024 }')
    disk_detection='df'
fi
printf '%s\n' "NETDATA_SYSTEM_TOTAL_DISK_SIZE=$total" "NETDATA_SYSTEM_DISK_DETECTION=$disk_detection"

# ---------------------------------------------------------------- cloud

cloud_type=unknown
cloud_instance=unknown
cloud_region=unknown
metadata=http://169.254.169.254
ask() {
    curl --fail --silent --max-time 1 --noproxy '*' "$@" 2>/dev/null
}
if [ "${NETDATA_DETECT_CLOUD:-no}" = yes ] && [ "$virtualization" != none ] && command -v curl >/dev/null 2>&1; then
    if token=$(ask -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/latest/api/token"); then
        cloud_type=AWS
        cloud_instance=$(ask -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/instance-type")
        cloud_region=$(ask -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/placement/region")
    elif machine=$(ask -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/machine-type"); then
        cloud_type=GCP
        cloud_instance=${machine##*/}
        zone=$(ask -H 'Metadata-Flavor: Google' "$metadata/computeMetadata/v1/instance/zone")
        zone=${zone##*/}
        cloud_region=${zone%-*}
    fi
fi
printf '%s\n' "NETDATA_INSTANCE_CLOUD_TYPE=$cloud_type" "NETDATA_INSTANCE_CLOUD_INSTANCE_TYPE=${cloud_instance:-unknown}" \
    "NETDATA_INSTANCE_CLOUD_INSTANCE_REGION=${cloud_region:-unknown}"
