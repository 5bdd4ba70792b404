"""The page: Gradio for the form, one plain script for everything that moves.

Left, the form: Gradio components built from the fields of `GenerationRequest`. Right, the stage: own HTML that follows
`/studio/v1/events` and asks `/studio/v1/...`, so a refreshed page or a second browser sees the same job at the same step.
A handler here makes three moves: read the form, call the studio, map the result to components. Gradio is imported only
when the page is mounted.
"""
