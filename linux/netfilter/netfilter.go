// Package netfilter is how a Linux guest filters packets: nf_tables with its tables,
// chains, rules, sets and objects, and the functions hooked into the paths of packets.
package netfilter
