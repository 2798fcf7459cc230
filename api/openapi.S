/* openapi.S - docs/openapi.yaml as bytes of the program, for api/rest/system.c. */
    .section .rodata
    .global api_openapi_yaml, api_openapi_yaml_end
api_openapi_yaml:
    .incbin "docs/openapi.yaml"
api_openapi_yaml_end:
    .byte 0
    .section .note.GNU-stack, "", @progbits
