// Package mm is a Linux guest's memory management: page frames, slab caches, vmalloc
// areas, zones, swap areas, and the counters of /proc/meminfo.
package mm
