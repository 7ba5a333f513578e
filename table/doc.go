// Package table is the one registry of views.
//
// A [View] has a name, typed and documented columns, and rows. Whatever shows
// data of a guest (the command line and its manual, JSON, CSV and later SQL, the
// HTTP API and the file tree) is derived from the registry, so that a view is
// written once: its Spec passed to [Register] makes it a verb.
//
// [Rows] runs a view with filters and counts what could not be read, and an
// [Encoder] writes rows in one of three forms. In all of them, guest text can do
// no harm: see the package text below this one.
package table
