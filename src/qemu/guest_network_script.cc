// What guest_network.cc runs in the guest. Nothing is ever inserted into this text: its values come
// as arguments. It keeps to what iproute2 and busybox have in common, of which the latter knows
// tables up to 1023.
//
// It says, a line each: "step NAME UPTIME", "interface NAME", "checked4", "answers4 yes|no",
// "answers6 yes|no", "mptcp", "dropped ADDRESS", "note TEXT", and "error TEXT" before it fails.
#include "qemu/guest_network_script.hh"

namespace godwit::qemu {

const std::string_view kGuestNetworkScript = R"sh(
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
own_rule=4747   # preference of the rules of a NIC that we configured
old_rule=4748   # and of those that keep the way out of one that was the default
own_metric=4747 # of the default routes in their tables: busybox shows IPv6's of all tables at once
state=/run/godwit-network

mac= mtu= addresses= networks= gateway4= gateway6= resolvers= drop_old=
verb=$1; shift
for word; do
  value=${word#*=}
  case $word in
    mac=*) mac=$value ;;
    mtu=*) mtu=$value ;;
    address=*) addresses="$addresses $value" ;;
    network=*) networks="$networks $value" ;;
    gateway4=*) gateway4=$value ;;
    gateway6=*) gateway6=$value ;;
    resolver=*) resolvers="$resolvers $value" ;;
    drop_old=*) drop_old=$value ;;
  esac
done

step() { read -r up _ < /proc/uptime; echo "step $1 $up"; }
fail() { echo "error $*"; exit 1; }
has() { command -v "$1" > /dev/null 2>&1; }
family() { case $1 in *:*) echo -6 ;; *) echo -4 ;; esac; }
# What is there already is no error.
must() {
  said=$("$@" 2>&1) && return
  case $said in *"File exists"* | *"already assigned"*) return ;; esac
  $on_failure
  fail "$*: $said"
}

# Not a bridge or a VLAN on top of it, which has the same MAC.
find_interface() {
  for link in /sys/class/net/*; do
    [ -e "$link/device" ] && read -r has_mac < "$link/address" || continue
    [ "$has_mac" = "$mac" ] && interface=${link##*/} && table=$(table_of "$interface") && return
  done
  interface=; return 1
}
table_of() {
  read -r index < "/sys/class/net/$1/ifindex" && echo $((750 + index % 250))
}
await_interface() {
  tries=100
  until find_interface; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || fail "no NIC has the MAC $mac: does the guest's kernel see the new device?"
    sleep 0.1
  done
  # It may get another name once more.
  ! has udevadm || udevadm settle --timeout=5
  find_interface || fail "the NIC with the MAC $mac came and went"
  echo "interface $interface"
}
setting() { echo "$2" 2> /dev/null > "/proc/sys/net/$1" || :; }

# Nobody else in the guest is to give it addresses or routes, and it answers for its own only.
bring_up() {
  ! has nmcli || nmcli device set "$interface" managed no > /dev/null 2>&1 || :
  setting "ipv6/conf/$interface/accept_ra" 0
  setting "ipv4/conf/$interface/arp_ignore" 1
  setting "ipv4/conf/$interface/arp_announce" 2
  must ip link set dev "$interface" mtu "$mtu" up
}

has_address() { ip -o addr show dev "$interface" | grep -qF " $1 "; }
# There is another program of this name, whose -D is something else.
has_arping() {
  has arping || return
  case $(arping -V 2>&1) in *iputils*|*BusyBox*) ;; *) return 1 ;; esac
}
check_duplicates4() {
  has_arping || { echo "note no arping in the guest: IPv4 addresses are not checked"; return; }
  asked=
  for address in $addresses; do
    [ "$(family "$address")" = -4 ] && ! has_address "$address" || continue
    arping -D -q -c 2 -w 2 -I "$interface" "${address%/*}" > /dev/null 2>&1 &
    asked="$asked $!:$address"
  done
  for each in $asked; do
    wait "${each%%:*}" && continue
    take_back
    fail "${each#*:} is in use by another machine on the network of $interface"
  done
  echo checked4
}
# /proc/net/if_inet6: address, index, length, scope, flags (8 duplicate, 40 tentative), name.
flags6() {
  while read -r _ _ _ scope flags name; do
    [ "$name" = "$interface" ] && [ "$scope" = 00 ] && [ $((0x$flags & $1)) -ne 0 ] && return
  done < /proc/net/if_inet6
  return 1
}
add_addresses() {
  for address in $addresses; do
    must ip "$(family "$address")" addr add "$address" dev "$interface"
  done
  tries=50
  while [ -e /proc/net/if_inet6 ] && flags6 0x40; do
    tries=$((tries - 1))
    if flags6 0x08; then
      take_back
      fail "an IPv6 address of$addresses is in use by another machine on the network of $interface"
    fi
    if [ $tries -eq 0 ]; then
      take_back
      fail "the kernel does not end its check for duplicates of$addresses"
    fi
    sleep 0.1
  done
}

add_routes() {
  for network in $networks; do
    must ip "$(family "$network")" route replace "$network" dev "$interface" table "$table"
  done
  for gateway in $gateway4 $gateway6; do
    must ip "$(family "$gateway")" route replace default via "$gateway" dev "$interface" onlink \
      metric $own_metric table "$table"
  done
  for address in $addresses; do
    must ip "$(family "$address")" rule add from "${address%/*}" pref $own_rule lookup "$table"
  done
}

# One ping, whose answer is not waited for, as a gateway need not answer pings: the first packet of
# a connection then finds its MAC.
try_gateway() {
  from=$interface
  case $1 in
    fe8*|fe9*|fea*|feb*) ;;
    *) for address in $addresses; do
         if [ "$(family "$address")" = "$(family "$1")" ]; then from=${address%/*}; break; fi
       done ;;
  esac
  ping "$(family "$1")" -c 1 -W 1 -I "$from" "$1" > /dev/null 2>&1 &
  tries=10
  until ip neigh show dev "$interface" | grep -F "$1 " | grep -q lladdr; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "answers$2 no"; return; }
    sleep 0.1
  done
  echo "answers$2 yes"
}

has_mptcp() {
  # dash reads byte by byte, of which such a file gives the first only.
  [ "$(cat /proc/sys/net/mptcp/enabled 2> /dev/null)" = 1 ] &&
    ip mptcp endpoint show > /dev/null 2>&1
}
has_endpoint() {
  ip mptcp endpoint show | {
    while read -r endpoint _; do [ "$endpoint" != "$1" ] || exit 0; done
    exit 1
  }
}
add_endpoints() {
  has_mptcp || { echo "note no MPTCP in the guest: net.mptcp.enabled or ip mptcp is missing"; return; }
  for address in $addresses; do
    has_endpoint "${address%/*}" ||
      must ip mptcp endpoint add "${address%/*}" dev "$interface" subflow signal
  done
  echo mptcp
}
delete_endpoints() {
  has_mptcp || return 0
  ip mptcp endpoint show | while read -r endpoint _ id _; do
    for address in $addresses; do
      [ "$endpoint" != "${address%/*}" ] || ip mptcp endpoint delete id "$id"
    done
  done
}

configure() {
  on_failure=take_back
  await_interface; step interface
  bring_up; step up
  check_duplicates4; step duplicates4
  add_addresses; step addresses
  add_routes; step routes
  if [ -n "$gateway4" ]; then try_gateway "$gateway4" 4; step neighbour4; fi
  if [ -n "$gateway6" ]; then try_gateway "$gateway6" 6; step neighbour6; fi
  add_endpoints; step endpoints
  [ -z "$gateway4" ] || prepare_flip -4 0
  [ -z "$gateway6" ] || prepare_flip -6 1
  step prepared
}

# The first default route is the one that is used: sets old (its NIC), how (the rest of it, to
# make it again), metric, and its_table. Without any program but ip: after a move this is what a
# guest does first.
read_default() {  # FAMILY
  old= how= metric=
  defaults=$(ip "$1" route show default)
  while read -r network route; do
    [ "$network" = default ] || continue  # busybox shows them all
    case " $route " in *" metric $own_metric "*) continue ;; esac
    parse_default $route
    break
  done << END
$defaults
END
  [ -n "$old" ] && its_table=$(table_of "$old")
}
parse_default() {  # WORDS...
  while [ $# -gt 0 ]; do
    case $1 in
      dev) old=$2; how="$how dev $2" ;;
      via|src) how="$how $1 $2" ;;
      metric) metric=$2 ;;
      onlink) how="$how onlink" ;;
    esac
    shift
  done
}
# What has an address of the NIC that is the default until now keeps its way out.
keep_way_out() {  # FAMILY
  ip "$1" route show dev "$old" | while read -r network rest; do
    case $network in *[!0-9a-f.:/]*) continue ;; esac
    case " $rest " in *" via "*) continue ;; esac
    ip "$1" route replace "$network" dev "$old" table "$its_table"
  done
  must ip "$1" route replace default $how metric $own_metric table "$its_table"
  for address in $(ip -o "$1" addr show dev "$old" scope global | while read -r _ _ _ each _; do
                     echo "${each%/*}"; done); do
    must ip "$1" rule add from "$address" pref $old_rule lookup "$its_table"
  done
}
# What of the flip can be done before it. A default route that has the best metric gets its table's
# number for one, by which we know it.
prepare_flip() {  # FAMILY BEST
  read_default "$1" && [ "$old" != "$interface" ] || return 0
  keeps_way_out "$1" || keep_way_out "$1"
  [ "${metric:-0}" = "$2" ] || return 0
  case $defaults in *" metric $its_table"*) return ;; esac
  must ip "$1" route add default $how metric "$its_table"
}
keeps_way_out() {  # FAMILY
  said=$(ip "$1" rule list)
  while read -r rule; do
    case $rule in "$old_rule:"*" lookup $its_table"*) return ;; esac
  done << END
$said
END
  return 1
}
flip() {  # FAMILY BEST GATEWAY
  prepare_flip "$1" "$2"
  must ip "$1" route replace default via "$3" dev "$interface" onlink metric "$2"
}
# One by one after all, since busybox flushes no table of IPv6's.
forget_table() {  # FAMILY NIC TABLE
  ip "$1" route flush table "$3" 2> /dev/null
  ip "$1" route show dev "$2" | while read -r network _; do
    ip "$1" route del "$network" dev "$2" table "$3" 2> /dev/null
  done
}
# Also when the NIC is gone, and its routes with it.
flip_back() {  # FAMILY BEST
  [ -z "$interface" ] || ip "$1" route del default dev "$interface" metric "$2" 2> /dev/null
  read_default "$1" || return 0
  [ "$metric" != "$its_table" ] || ip "$1" route add default $how metric "$2"
  ip "$1" route del default dev "$old" metric "$its_table" 2> /dev/null
  while ip "$1" rule del pref $old_rule table "$its_table" 2> /dev/null; do :; done
  ip "$1" rule list | grep -q "^$own_rule:.* lookup $its_table" ||
    forget_table "$1" "$old" "$its_table"
}
flip_all_back() { flip_back -4 0; flip_back -6 1; }

is_resolved() {
  has resolvectl || return
  case $(readlink /etc/resolv.conf) in *systemd/resolve/*) ;; *) return 1 ;; esac
}
set_resolvers() {
  [ -n "$resolvers" ] || return 0
  if is_resolved; then
    resolvectl dns "$interface" $resolvers && resolvectl domain "$interface" "~."
    return
  fi
  mkdir -p "$state"
  # The first who writes keeps what was there.
  [ -e "$state/resolvers-of" ] || [ ! -e /etc/resolv.conf ] ||
    cat /etc/resolv.conf > "$state/resolv.conf"
  echo "$mac" > "$state/resolvers-of"
  for resolver in $resolvers; do echo "nameserver $resolver"; done > /etc/resolv.conf ||
    echo "note cannot write /etc/resolv.conf"
}
restore_resolvers() {
  [ -z "$interface" ] || ! is_resolved || resolvectl revert "$interface"
  read -r writer 2> /dev/null < "$state/resolvers-of" && [ "$writer" = "$mac" ] || return 0
  if [ -e "$state/resolv.conf" ]; then
    cat "$state/resolv.conf" > /etc/resolv.conf
  else
    rm -f /etc/resolv.conf
  fi
  rm -f "$state/resolvers-of" "$state/resolv.conf"
}

drop_old_addresses() {
  [ "$drop_old" = 1 ] || return 0
  has_mptcp || { echo "note no MPTCP in the guest: nothing has the old addresses to drop"; return; }
  for each in -4 -6; do
    for address in $(ip $each rule list | sed -n "s/^$old_rule:.* from \([^ ]*\) .*/\1/p;
                                                  s/^$old_rule:.*from \([^ ]*\) .*/\1/p"); do
      ip mptcp endpoint delete id 0 "$address" && echo "dropped $address"
    done
  done
}

make_default() {
  on_failure=flip_all_back
  find_interface || fail "no NIC has the MAC $mac: plug it in and configure it first"
  echo "interface $interface"
  [ -z "$gateway4" ] || flip -4 0 "$gateway4"
  [ -z "$gateway6" ] || flip -6 1 "$gateway6"
  step default
  set_resolvers; step resolvers
  drop_old_addresses; step dropped
}

is_ours() {  # NIC
  { ip -4 rule list; ip -6 rule list; } 2> /dev/null |
    grep -q "^$own_rule:.* lookup $(table_of "$1")"
}
# The NIC is the way again that it was before any of ours, which keep the way out of their own
# addresses.
give_back() {
  find_interface || fail "no NIC has the MAC $mac"
  echo "interface $interface"
  for link in /sys/class/net/*; do
    interface=${link##*/}
    [ -e "$link/device" ] && is_ours "$interface" || continue
    read -r mac < "$link/address"
    for f in -4 -6; do
      ip $f route del default dev "$interface" metric "$(table_of "$interface")" 2> /dev/null
    done
    flip_all_back
    restore_resolvers
  done
  step default
}

take_back() {
  find_interface || :
  flip_all_back
  restore_resolvers
  delete_endpoints
  for address in $addresses; do
    f=$(family "$address")
    for rule in $own_rule $old_rule; do
      while ip "$f" rule del from "${address%/*}" pref $rule 2> /dev/null; do :; done
    done
    [ -z "$interface" ] || ip "$f" addr del "$address" dev "$interface" 2> /dev/null
  done
  [ -n "$interface" ] || return 0
  forget_table -4 "$interface" "$table"
  forget_table -6 "$interface" "$table"
  ip link set dev "$interface" down
}

deconfigure() {
  find_interface && echo "interface $interface"
  take_back
  step back
}

case $verb in configure|make_default|give_back|deconfigure) ;; *) fail "unknown verb" ;; esac
step begin
has ip || fail "the guest has no program ip: install iproute2"
$verb
exit 0
)sh";

}  // namespace godwit::qemu
