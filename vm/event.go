package vm

import (
	"encoding/json"
	"time"
)

// EventKind is what happened to a machine, the same for every monitor.
type EventKind string

// The kinds of events. What a monitor reports beyond these is an [EventOther], with the
// monitor's own name.
const (
	EventReset     EventKind = "reset"     // reset, by the guest or from outside: memory may hold another kernel soon
	EventShutdown  EventKind = "shutdown"  // the guest has shut down, or its monitor is about to exit
	EventPowerdown EventKind = "powerdown" // the guest was asked to shut down
	EventStop      EventKind = "stop"      // the CPUs were stopped
	EventResume    EventKind = "resume"    // the CPUs run again
	EventSuspend   EventKind = "suspend"   // the guest suspended itself
	EventWakeup    EventKind = "wakeup"    // the guest left suspend
	EventMigration EventKind = "migration" // a migration changed its status
	EventPanic     EventKind = "panic"     // the guest reported a crash
	EventGone      EventKind = "gone"      // the machine's process has ended; the last event
	EventOther     EventKind = "other"
)

// Event is something that happened to a machine.
type Event struct {
	Time time.Time // by the monitor's clock
	Kind EventKind
	Name string          // in the monitor's words: "RESET"
	Data json.RawMessage // what the monitor adds; nil: nothing
	Lost uint64          // events that were dropped just before this one
}
