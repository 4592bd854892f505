// Package conf holds sample configuration and nothing to import. Its test reads
// every sample with the parser that will read it on a host.
package conf
