// `godwit lab probe` as a program of its own, for tests and for hosts without the rest.
#include "lab/probe.hh"

int main(int argc, char** argv) { return godwit::lab::probe_main(argc, argv); }
