/* Prints the layout of the structs and the numbers of the choices, as tests/c/abi.txt has them. */
#include <stdio.h>
#include <tidewire.h>

#define STRUCT(type) printf("%s size %zu\n", #type, sizeof(type))
#define FIELD(type, field) printf("%s.%s at %zu size %zu\n", #type, #field, offsetof(type, field), sizeof(((type *)0)->field))
#define NUMBER(name) printf("%s = %llu\n", #name, (unsigned long long)(name))

int main(void) {
#include "abi.inc"
  return 0;
}
