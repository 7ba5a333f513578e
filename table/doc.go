// Package table is the one registry of views.
//
// A [View] has a name, typed and documented columns, and rows. Whatever shows
// data of a guest (the command line and its manual, JSON, CSV, SQL, later the
// HTTP API and the file tree) is derived from the registry, so that a view is
// written once: a [View] made by [Of] and passed to [Register] is a verb.
//
// [Rows] runs a view with filters and counts what could not be read, and an
// [Encoder] writes rows in one of three forms. In all of them, guest text can do
// no harm: see the package text below this one.
//
// Rows come as they are read. An encoder holds them back to write in large pieces, and the
// table form to align its columns: who shows a stream calls Flush, after each row of a view
// whose rows come as things happen (Spec.Live), or a moment after the last row that came.
package table
