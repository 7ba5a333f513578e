// Package sched is what a Linux guest's kernel runs and when: run queues, timers,
// workqueues, interrupts and the load.
package sched
